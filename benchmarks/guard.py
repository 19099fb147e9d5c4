"""What the guard and a checkpoint cost: ``python -m benchmarks.guard``.

Steps: the network of `benchmarks.step` and the U-Net of the digits, each trained under guard=off,
skip and rewind at their defaults, without validation and without a folder. The trainings take turns of
100 steps in one process, and ratios are formed round by round (see `benchmarks.timing`).

Checkpoints: `trainer.checkpoint.save` of a state of 50 MB, hash, fsync and rename included, against
`torch.save` of the same state followed by fsync, to the same folder.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from benchmarks.problems import overheads
from benchmarks.tables import Part, shown, timed
from benchmarks.timing import Bar, Entry, interleave
from trainer import checkpoint
from trainer.guard import Guard, Off, Rewind, Skip

GUARDS: dict[str, Callable[[], Guard]] = {"off": Off, "skip": Skip, "rewind": Rewind}
LIMITS = {"skip": 1.02, "rewind": 1.05}
MEGABYTES = 50
SAVING = Bar("checkpoint / torch.save + fsync", 1.3, at_least=False)


def state() -> dict[str, torch.Tensor]:
    """50 MB in 16 tensors."""
    return {f"layer{i}": torch.randn(MEGABYTES * 10**6 // 64) for i in range(16)}


def plain_save(folder: Path, what: dict[str, torch.Tensor], times: int) -> float:
    """Seconds for so many saves by `torch.save` and fsync."""
    start = time.perf_counter()
    for _ in range(times):
        with open(folder / "plain.pt", "wb") as file:
            torch.save(what, file)
            file.flush()
            os.fsync(file.fileno())
    return time.perf_counter() - start


def checked_save(folder: Path, what: dict[str, torch.Tensor], times: int) -> float:
    """Seconds for so many saves of ours."""
    start = time.perf_counter()
    for _ in range(times):
        checkpoint.save(folder / "ours.ckpt", what)
    return time.perf_counter() - start


def measure(seconds: float = 60, rounds: int = 25, folder: Path | None = None) -> Iterator[Part]:
    """Microseconds of a step under each guard, and milliseconds of a checkpoint."""
    yield from overheads("guard", GUARDS, LIMITS, seconds)
    with tempfile.TemporaryDirectory(dir=folder) as name:
        what = state()
        savers = {"torch.save + fsync": plain_save, "checkpoint": checked_save}
        entries = [Entry(label, partial(save, Path(name), what)) for label, save in savers.items()]
        interleave(entries, 1)  # warms up
        for entry in entries:
            entry.seconds.clear()
        interleave(entries, rounds)
    yield timed(f"Saving {MEGABYTES} MB", entries, "ms", 1e3, [SAVING])


def main() -> int:
    """Measures and prints; the status is 1 only when something crashed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25, help="saves of each kind")
    parser.add_argument("--seconds", type=float, default=60, help="for the steps of each problem")
    parser.add_argument(
        "--folder", type=Path, help="where checkpoints are written; default: a temporary"
    )
    return shown(measure(**vars(parser.parse_args())))


if __name__ == "__main__":
    raise SystemExit(main())

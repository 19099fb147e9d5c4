"""What the guard and a checkpoint cost: ``python -m benchmarks.guard``.

Steps: the network of `benchmarks.step` and the U-Net of the digits, each trained under guard=off,
skip and rewind at their defaults, without validation and without a folder, all of `fit` timed. The
guards take turns in one process, and ratios are formed round by round (see `benchmarks.timing`).

Checkpoints: `trainer.checkpoint.save` of a state of 50 MB, hash, fsync and rename included, against
`torch.save` of the same state followed by fsync, to the same folder.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks.problems import PROBLEMS, train
from benchmarks.timing import Bar, Entry, calibrate, interleave, median_ratio, spread, table
from trainer import checkpoint
from trainer.guard import Guard, Off, Rewind, Skip

GUARDS: dict[str, Callable[[], Guard]] = {"off": Off, "skip": Skip, "rewind": Rewind}
LIMITS = {"skip": 1.02, "rewind": 1.05}
MEGABYTES, SAVING = 50, 1.3


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


def compare(title: str, entries: list[Entry], bars: dict[str, Bar], rounds: int) -> list[list[str]]:
    """Measures, prints a table of seconds per unit of work, and returns the rows of the bars. The first
    entry is the one that the others are compared to."""
    interleave(entries, rounds)
    rows, base = [], entries[0]
    for entry in entries:
        each = [1e6 * seconds / entry.amount for seconds in entry.seconds]
        ratio = median_ratio(base.rates, entry.rates) if each else None
        rows.append(
            [entry.name, spread(each, ".0f") if each else entry.crash[:60], f"{ratio or 0:.3f}x"]
        )
    print(table([title, "µs", f"to {base.name}"], rows) + "\n")
    return [bars[e.name].row(median_ratio(base.rates, e.rates)) for e in entries if e.name in bars]


def step_entries(problem: str, seconds: float) -> list[Entry]:
    """The three guards on one problem, all with the same number of steps."""
    entries = [Entry(name, partial(train, problem, {"guard": make})) for name, make in GUARDS.items()]
    calibrate(entries[0], seconds, first=50)
    for entry in entries:  # a whole number of snapshots, beside the one before the first step
        entry.amount = max(100, entries[0].amount // 100 * 100)
    return entries


def main() -> int:
    """Measures and prints; the status is 1 only when something crashed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=25, help="turns for each contender")
    parser.add_argument("--seconds", type=float, default=0.3, help="length of one turn of steps")
    parser.add_argument(
        "--folder", type=Path, help="where checkpoints are written; default: a temporary"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, crashed = [], False
    for problem in PROBLEMS:
        entries = step_entries(problem, options.seconds)
        bars = {
            guard: Bar(f"{problem}: {guard} / off", limit, at_least=False)
            for guard, limit in LIMITS.items()
        }
        rows += compare(f"step of {problem}", entries, bars, options.rounds)
        crashed |= any(entry.crash for entry in entries)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        what = state()
        savers = {"torch.save + fsync": plain_save, "checkpoint": checked_save}
        entries = [Entry(label, partial(save, Path(name), what)) for label, save in savers.items()]
        interleave(entries, 1)  # warms up
        for entry in entries:
            entry.seconds.clear()
        bar = Bar("checkpoint / torch.save + fsync", SAVING, at_least=False)
        rows += compare(f"saving {MEGABYTES} MB", entries, {"checkpoint": bar}, options.rounds)
        crashed |= any(entry.crash for entry in entries)
    print(table(["bar", "wanted", "measured", ""], rows))
    return int(crashed)


if __name__ == "__main__":
    raise SystemExit(main())

"""The fault matrix: ``python -m benchmarks.faults --minutes 10`` runs it for as long as it is given.

Each row breaks real runs of ``train.py`` in one way, repairs them as a person would (``resume=``), and
compares the outcome with a run that was left alone: record byte for byte, every tensor of the last
checkpoint bit for bit. Printed are attempts that held, of all. The tests run each row once or twice.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from trainer import checkpoint

TRAIN = str(Path(__file__).parent.parent / "train.py")
STEPS = 600
SAVES = ["checkpoint.every_steps=50", "checkpoint.keep=3", "trainer.log_every=10"]
JOBS = [
    ["data=random", "model=mlp", "loss=mse", "clip=norm", "optimizer=adamw"],
    ["data=random", "model=mlp", "loss=combined", "clip=value", "optimizer=sgd", "scheduler=step"],
    ["data=random", "model=mlp", "loss=l1", "clip=none", "guard=rewind", "trainer.accumulate=2"],
    ["data=digits_denoise", "model=unet", "model.channels=2", "loss=combined", "clip=norm"],
]
Row = Callable[[Path, random.Random], bool]

DIES_IN_A_SAVE = """
import os, pathlib, sys
left = int(sys.argv.pop(1))
def dying(call):
    def wrapper(*arguments, **more):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), 9)
        return call(*arguments, **more)
    return wrapper
os.fsync, pathlib.Path.replace = dying(os.fsync), dying(pathlib.Path.replace)
sys.path.insert(0, str(pathlib.Path(sys.argv[0]).parent))
import train
sys.exit(train.main())
"""


def start(folder: Path, *arguments: str, limit: int | None = None) -> subprocess.Popen[str]:
    """``train.py`` in the folder, on one thread; no file may grow beyond ``limit`` bytes."""

    def limited() -> None:
        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.Popen(
        [sys.executable, TRAIN, *arguments],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=limited,
    )


def finish(run: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit code, and everything that was printed."""
    out, _ = run.communicate(timeout=300)
    return run.returncode, out


def identical(a: Any, b: Any) -> bool:
    """Whether two states are the same to the bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(identical(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(identical(x, y) for x, y in zip(a, b, strict=True))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else bool(a == b)


def same_run(folder: Path, whole: Path) -> bool:
    """Whether record and last state are the same, and nothing temporary is left."""
    records = [(path / "metrics.jsonl").read_bytes() for path in (folder, whole)]
    newest = [checkpoint.newest_first(path / "checkpoints")[0] for path in (folder, whole)]
    states = [checkpoint.load(path) for path in newest]
    return records[0] == records[1] and identical(*states) and not list(folder.rglob("*.partial"))


def prepared(folder: Path, rng: random.Random) -> list[str]:
    """Draws a job, runs it to its end in ``folder/whole``, and returns its arguments."""
    job = [*rng.choice(JOBS), *SAVES, f"seed={rng.randrange(100)}", f"trainer.max_steps={STEPS}"]
    code, out = finish(start(folder, *job, "hydra.run.dir=whole"))
    assert code == 0, out
    return job


def killed_at_any_instant(folder: Path, rng: random.Random) -> bool:
    """SIGKILL, up to three times, at random instants after the first line of the record."""
    job = prepared(folder, rng)
    arguments = [*job, "hydra.run.dir=run"]
    for _ in range(rng.randint(1, 3)):
        run = start(folder, *arguments)
        while not (folder / "run" / "metrics.jsonl").exists() and run.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.random() * (3 if arguments == ["resume=run"] else 1))
        run.kill()
        finish(run)
        arguments = ["resume=run"]
    code, out = finish(start(folder, *arguments))
    return (code == 0 or "is complete" in out) and same_run(folder / "run", folder / "whole")


def killed_inside_a_save(folder: Path, rng: random.Random) -> bool:
    """SIGKILL at one of the flushes and renames of a save."""
    job = prepared(folder, rng)
    script = folder / "dies.py"
    script.write_text(DIES_IN_A_SAVE.replace("sys.argv[0]", repr(TRAIN)))
    command = [sys.executable, str(script), str(rng.randint(1, 24)), *job, "hydra.run.dir=run"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    code, _ = finish(start(folder, "resume=run"))
    return done.returncode == -9 and code == 0 and same_run(folder / "run", folder / "whole")


def asked_to_stop(folder: Path, rng: random.Random) -> bool:
    """SIGTERM, SIGINT or SIGUSR1 at a random step: 128 + n, a checkpoint of that very step."""
    job = prepared(folder, rng)
    number = rng.choice([signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
    run = start(folder, *job, "hydra.run.dir=run")
    while not (folder / "run" / "metrics.jsonl").exists() and run.poll() is None:
        time.sleep(0.01)
    time.sleep(rng.random() * 0.3)
    run.send_signal(number)
    code, _ = finish(run)
    summary = json.loads((folder / "run" / "summary.json").read_text())
    newest = checkpoint.newest_first(folder / "run" / "checkpoints")[0]
    at_step = checkpoint.load(newest)["counters"]["step"] == summary["steps"]
    resumed, _ = finish(start(folder, "resume=run"))
    if summary["status"] == "completed":  # it was quicker than the signal
        return code == 0 and same_run(folder / "run", folder / "whole")
    return (
        code == 128 + number and at_step and resumed == 0 and same_run(folder / "run", folder / "whole")
    )


def disk_full(folder: Path, rng: random.Random) -> bool:
    """No file may grow beyond a random size: one line, exit 1, and the same once there is room."""
    job = prepared(folder, rng)
    size = checkpoint.newest_first(folder / "whole" / "checkpoints")[0].stat().st_size
    code, out = finish(start(folder, *job, "hydra.run.dir=run", limit=rng.randint(20_000, size - 1)))
    told = code == 1 and "Traceback" not in out and "could not be written" in out
    resumed, _ = finish(start(folder, "resume=run"))
    return told and resumed == 0 and same_run(folder / "run", folder / "whole")


def damaged(folder: Path, rng: random.Random, every: bool = False) -> bool:
    """The newest checkpoint cut, emptied, zeroed, flipped or foreign: named, and the one before used."""
    prepared(folder, rng)
    shutil.copytree(folder / "whole", folder / "run")
    paths = checkpoint.newest_first(folder / "run" / "checkpoints")
    for path in paths if every else paths[:1]:
        content = bytearray(path.read_bytes())
        at = rng.randrange(len(content))
        content[at] ^= 1 << rng.randrange(8)
        zeroed = content[: at & ~4095] + bytes(4096) + content[(at & ~4095) + 4096 :]
        path.write_bytes(rng.choice([content, content[:at], b"", zeroed, b"not ours" * 100]))
    run = start(folder, "resume=run")
    code, out = finish(run)
    if every:
        return code == 2 and "has no checkpoint that is whole" in out
    return code == 0 and paths[0].name in out and same_run(folder / "run", folder / "whole")


def all_damaged(folder: Path, rng: random.Random) -> bool:
    """Every checkpoint damaged: refused, never silently started at 0."""
    return damaged(folder, rng, every=True)


def started_together(folder: Path, rng: random.Random) -> bool:
    """Eight runs in the same instant: eight folders; and of two runs on one folder, one is refused."""
    short = [*JOBS[0], "trainer.max_steps=5"]
    runs = [start(folder, *short) for _ in range(8)]
    codes = [finish(run)[0] for run in runs]
    folders = len(list(folder.glob("outputs/*/*/summary.json")))
    pair = [finish(run) for run in [start(folder, *short, "hydra.run.dir=one") for _ in range(2)]]
    refused = [out for code, out in pair if code == 2]
    return codes == [0] * 8 and folders == 8 and len(refused) == 1 and "one" in refused[0]


ROWS: dict[str, Row] = {
    "1, 16  SIGKILL at any instant": killed_at_any_instant,
    "2      SIGKILL inside a save": killed_inside_a_save,
    "3      SIGTERM, SIGINT, SIGUSR1": asked_to_stop,
    "4      disk full in a checkpoint": disk_full,
    "6      newest checkpoint damaged": damaged,
    "7      all checkpoints damaged": all_damaged,
    "12     runs started together": started_together,
}


def attempt(row: Row, rng: random.Random) -> bool:
    """One attempt at a row, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        return row(Path(folder), rng)


def main() -> None:
    """Runs the rows in turn until the time is up, and prints the table."""
    parser = argparse.ArgumentParser(description="The fault matrix.")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, end = random.Random(options.seed), time.monotonic() + 60 * options.minutes
    held = dict.fromkeys(ROWS, 0)
    tried = dict.fromkeys(ROWS, 0)
    while time.monotonic() < end:
        for name, row in ROWS.items():
            tried[name] += 1
            held[name] += attempt(row, rng)
    print("row    fault                          held")
    for name in ROWS:
        print(f"{name:<38}{held[name]}/{tried[name]}")


if __name__ == "__main__":
    main()

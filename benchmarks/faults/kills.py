"""Rows 1, 2, 3 and 16: a run that is killed, or asked to stop."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

from benchmarks.faults.runs import JOBS, LINES, finish, here, prepared, recorded, same_run, start
from trainer import checkpoint

SMALLEST = JOBS[1:2]  # in the bytes of a save
POINTS = 200  # writes, flushes and renames in its first two saves
DIES_IN_A_SAVE = """
import os, pathlib, sys
from trainer import hashed
import train
left = {at}
def dying(call):
    def wrapper(*arguments, **more):
        global left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), 9)
        return call(*arguments, **more)
    return wrapper
os.fsync, pathlib.Path.replace = dying(os.fsync), dying(pathlib.Path.replace)
hashed.HashedWriter.write = dying(hashed.HashedWriter.write)
sys.argv[0] = "train.py"
sys.exit(train.main())
"""


def killed_at_any_instant(folder: Path, rng: random.Random) -> bool:
    """SIGKILL, up to three times, at random instants after the first line of the record: while it goes
    on, or while the run that continues it starts."""
    job = prepared(folder, rng)
    arguments, done = [*job, "hydra.run.dir=run"], 1
    for _ in range(rng.randint(1, 3)):
        run = start(folder, *arguments)
        lines = rng.randint(done, max(done, LINES - 10))
        recorded(folder / "run", run, lines)
        time.sleep(rng.random() * (0.5 if lines == done else 0.02))
        run.kill()
        finish(run)
        done = (folder / "run" / "metrics.jsonl").read_bytes().count(b"\n")
        arguments = ["resume=run"]
    code, out = finish(start(folder, *arguments))
    return (code == 0 or "is complete" in out) and same_run(folder / "run", folder / "whole")


def killed_inside_a_save(folder: Path, rng: random.Random) -> bool:
    """SIGKILL at one of the writes, flushes and renames of the first two saves: in so many tries, at
    each of them once."""
    job = prepared(folder, rng, SMALLEST)
    script = DIES_IN_A_SAVE.format(at=1 + 67 * (here.number + 1) % POINTS)
    code, _ = finish(start(folder, *job, "hydra.run.dir=run", script=script))
    resumed, _ = finish(start(folder, "resume=run"))
    return code == -signal.SIGKILL and resumed == 0 and same_run(folder / "run", folder / "whole")


def asked_to_stop(folder: Path, rng: random.Random) -> bool:
    """SIGTERM, SIGINT or SIGUSR1 at a random step: 128 + n, a checkpoint of that very step."""
    job = prepared(folder, rng)
    number = rng.choice([signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
    run = start(folder, *job, "hydra.run.dir=run")
    recorded(folder / "run", run, rng.randint(1, LINES // 4))
    time.sleep(rng.random() * 0.02)
    run.send_signal(number)
    code, _ = finish(run)
    summary = json.loads((folder / "run" / "summary.json").read_text())
    newest = checkpoint.newest_first(folder / "run" / "checkpoints")[0]
    at_step = checkpoint.load(newest)["counters"]["step"] == summary["steps"]
    resumed, _ = finish(start(folder, "resume=run"))
    if summary["status"] == "completed":  # it was quicker than the signal
        return code == 0 and same_run(folder / "run", folder / "whole")
    # Which file is the best so far may be another: there was one more to choose from.
    same = same_run(folder / "run", folder / "whole", "checkpoints")
    return code == 128 + number and at_step and resumed == 0 and same

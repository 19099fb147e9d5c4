"""Rows 1, 2, 3 and 16: a run that is killed, or asked to stop."""

from __future__ import annotations

import json
import random
import signal
import time
from pathlib import Path

from benchmarks.faults.runs import finish, prepared, same_run, start
from trainer import checkpoint

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
    """SIGKILL at one of the writes, flushes and renames of a save."""
    job = prepared(folder, rng)
    script = DIES_IN_A_SAVE.format(at=rng.randint(1, 300))
    code, _ = finish(start(folder, *job, "hydra.run.dir=run", script=script))
    resumed, _ = finish(start(folder, "resume=run"))
    return code == -signal.SIGKILL and resumed == 0 and same_run(folder / "run", folder / "whole")


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

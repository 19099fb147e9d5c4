"""Rows 4 to 7: a disk that is full, a checkpoint that is damaged."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event

from benchmarks.faults.runs import finish, prepared, same_run, start
from trainer import checkpoint


def disk_full(folder: Path, rng: random.Random) -> bool:
    """No file may grow beyond a random size: one line, exit 1, and the same once there is room."""
    job = prepared(folder, rng)
    size = checkpoint.newest_first(folder / "whole" / "checkpoints")[0].stat().st_size
    code, out = finish(start(folder, *job, "hydra.run.dir=run", limit=rng.randint(20_000, size - 1)))
    told = code == 1 and "Traceback" not in out and "could not be written" in out
    resumed, _ = finish(start(folder, "resume=run"))
    return told and resumed == 0 and same_run(folder / "run", folder / "whole")


EVENTS_FULL = """
import errno, io, sys
from trainer import tensorboard
import train
left, full = {left}, {full}
class Disk(io.FileIO):
    def write(self, data):
        global left, full
        if left > 0:
            left -= 1
        elif full > 0:
            full -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)
tensorboard.open = lambda path, mode, **_: Disk(path, mode)
sys.argv[0] = "train.py"
sys.exit(train.main())
"""


def events_full(folder: Path, rng: random.Random) -> bool:
    """No room for some events: one warning, the run is the same, later events are there."""
    job = prepared(folder, rng)
    left, full = rng.randint(0, 20), rng.randint(1, 15)
    run = start(folder, *job, "hydra.run.dir=run", script=EVENTS_FULL.format(left=left, full=full))
    code, out = finish(run)
    (path,) = (folder / "run").glob("events.*")
    steps = {Event.FromString(event).step for event in RawEventFileLoader(str(path)).Load()}
    told = out.count("TensorBoard is not written") == 1
    last = json.loads((folder / "run" / "summary.json").read_text(encoding="utf-8"))["steps"]
    return code == 0 and told and last in steps and same_run(folder / "run", folder / "whole")


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

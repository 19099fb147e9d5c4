"""Row 13: a process that fetches data is killed, hangs or raises."""

from __future__ import annotations

import random
import re
import time
from pathlib import Path

from benchmarks.faults.runs import alive, finish, start


def failing_worker(folder: Path, rng: random.Random) -> bool:
    """A named error within 30 s of the run's first sign of life, the run failed, and no process left."""
    how = rng.choice(["killed", "hangs", "raises"])
    arguments = ["data=fetched", "data.num_workers=2", f"data.fails={how}", "model=noisy", "loss=mse"]
    run = start(folder, *arguments, "data.timeout=2", "hydra.run.dir=run")
    while run.poll() is None and not (folder / "run").exists():
        time.sleep(0.01)
    began = time.monotonic()
    code, out = finish(run)
    # Of a death torch tells itself, where the signal comes while a step is under way.
    killed = "exited or was killed|killed by signal"
    told = {"killed": killed, "hangs": "gave nothing for 2 s", "raises": "sample 7 is"}
    quick = time.monotonic() - began < 30
    return code == 1 and quick and re.search(told[how], out) is not None and not alive(folder)

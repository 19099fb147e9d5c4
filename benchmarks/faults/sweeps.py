"""Rows 10 to 12: a sweep whose jobs fail, a sweep that is killed, runs that start together."""

from __future__ import annotations

import json
import math
import random
import time
from pathlib import Path

from benchmarks.faults.runs import JOBS, alive, finish, here, start

SHORT = ["data=random", "model=mlp", "trainer.max_steps=20"]
CAUSES = ("RuntimeError", "it called sys.exit", "MemoryError", "its process was killed by signal 9")


def failing_jobs(folder: Path, rng: random.Random) -> bool:
    """Of 64 jobs, 16 raise, exit, ask for more memory than there is or are killed, four of each kind, in
    a part that lets jobs be trained as one or in one that does not: 48 finish, 16 are named with their
    cause, and the exit code is 1."""
    part = rng.choice(["loss", "clip"])
    swept = [f"{part}=failing", f"{part}.fails=raises,exits,fills,killed", "seed=range(4)"]
    swept += [f"{part}.after=10,100,101,102", "hydra/launcher=vectorized"]
    code, out = finish(start(folder, "-m", *SHORT, *swept, "hydra.sweep.dir=sweep"))
    listed = json.loads((folder / "sweep" / "sweep.json").read_text())["jobs"]
    ended = [job["status"] for job in listed]
    told = [out.count(f"failed: {cause}") for cause in CAUSES]
    return (
        code == 1 and (ended.count("completed"), ended.count("failed")) == (48, 16) and told == [4] * 4
    )


def failing_jobs_in_turn(folder: Path, rng: random.Random) -> bool:
    """The same with Hydra's own launcher, which runs all jobs in one process: nothing may kill that."""
    kind = rng.choice(["raises", "exits", "fills"])
    swept = ["loss=failing", f"loss.fails={kind}", "loss.after=10,100,101,102", "seed=range(16)"]
    swept += ["hydra/launcher=basic", "hydra.sweep.dir=sweep"]
    code, out = finish(start(folder, "-m", *SHORT, *swept))
    listed = json.loads((folder / "sweep" / "sweep.json").read_text())["jobs"]
    ended = [job["status"] for job in listed]
    told = sum(out.count(f"failed: {cause}") for cause in CAUSES)
    return code == 1 and (ended.count("completed"), ended.count("failed"), told) == (48, 16, 16)


def killed_sweep(folder: Path, rng: random.Random) -> bool:
    """A sweep killed at a random instant, up to three times: the same command finishes it, what was
    done is kept, no process stays, and every record is that of a sweep that was left alone."""
    launch = rng.choice(["basic", "vectorized", "vectorized hydra.launcher.strategy=processes"])
    how, *strategy = f"hydra/launcher={launch}".split(" ")
    swept = [*SHORT, "trainer.max_steps=200", "trainer.log_every=10", "checkpoint.every_steps=50"]
    swept += ["clip.max_norm=0.1,1", f"seed={rng.randrange(100)},100,101", how, *strategy]
    done: dict[Path, int] = {}
    for _ in range(rng.randint(1, 3)):
        run = start(folder, "-m", *swept, "resume=auto")
        while not list(folder.glob("outputs/sweeps/*/*/metrics.jsonl")) and run.poll() is None:
            time.sleep(0.01)
        time.sleep(2 + 2 * rng.random() if done else rng.random())
        run.kill()
        finish(run)
        done |= {
            path: path.stat().st_mtime_ns
            for path in folder.glob("outputs/sweeps/*/*/metrics.jsonl")
            if (path.parent / "summary.json").exists() and path not in done
        }
        if through := any(folder.glob("outputs/sweeps/*/sweep.json")):
            break  # it was drawing its pictures: the same command would rightly begin another
    finished = 0 if through else finish(start(folder, "-m", *swept, "resume=auto"))[0]
    code, _ = finish(start(folder, "-m", *swept, "hydra.sweep.dir=whole"))
    (sweep, *more) = folder.glob("outputs/sweeps/*")
    exact = launch != "vectorized"  # else a job may have begun in a stack and ended alone
    same = all(_same(sweep / str(job), folder / "whole" / str(job), exact) for job in range(6))
    kept = all(path.stat().st_mtime_ns == when for path, when in done.items())
    return code == finished == 0 and same and kept and not more and not alive(folder)


def _same(one: Path, other: Path, exact: bool) -> bool:
    """Whether two records are the same: to the byte, or as good as."""
    records = [(path / "metrics.jsonl").read_bytes() for path in (one, other)]
    if exact:
        return records[0] == records[1]
    lines = [[json.loads(line) for line in record.splitlines()] for record in records]
    return len(lines[0]) == len(lines[1]) and all(
        a.keys() == b.keys() and all(a[k] == b[k] or math.isclose(a[k], b[k], rel_tol=1e-3) for k in a)
        for a, b in zip(*lines, strict=True)
    )


def started_together(folder: Path, rng: random.Random) -> bool:
    """Of two runs on one folder, one is refused; and 64 runs (eight in the first try) that start in the
    same instant have a folder each."""
    short, many = [*JOBS[0], "trainer.max_steps=5"], 64 if here.number else 8
    pair = [finish(run) for run in [start(folder, *short, "hydra.run.dir=one") for _ in range(2)]]
    refused = [out for code, out in pair if code == 2]
    runs = [start(folder, *short) for _ in range(many)]
    codes = [finish(run)[0] for run in runs]
    folders = len(list(folder.glob("outputs/*/*/summary.json")))
    return codes == [0] * many and folders == many and len(refused) == 1 and "one" in refused[0]

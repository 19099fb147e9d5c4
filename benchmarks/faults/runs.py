"""Starting ``train.py``, breaking it, and comparing what it left with a run that was left alone."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from trainer import checkpoint

ROOT = Path(__file__).parent.parent.parent
CONF = str(Path(__file__).parent / "conf")
STEPS = 600
SAVES = ["checkpoint.every_steps=50", "checkpoint.keep=3", "trainer.log_every=10"]
JOBS = [
    ["data=random", "model=mlp", "loss=mse", "clip=norm", "optimizer=adamw"],
    ["data=random", "model=mlp", "loss=combined", "clip=value", "optimizer=sgd", "scheduler=step"],
    ["data=random", "model=mlp", "loss=l1", "clip=none", "guard=rewind", "trainer.accumulate=2"],
    ["data=digits_denoise", "model=unet", "model.channels=2", "loss=combined", "clip=norm"],
    ["data=fetched", "model=noisy", "loss=mse", "clip=norm", "optimizer=adam"],
    ["data=fetched", "data.num_workers=2", "model=noisy", "loss=smooth_l1", "clip=value"],
]
Row = Callable[[Path, random.Random], bool]
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def start(
    folder: Path, *arguments: str, limit: int | None = None, script: str | None = None
) -> subprocess.Popen[str]:
    """``train.py`` in the folder, on one thread; no file may grow beyond ``limit`` bytes. A script, if
    given, is run instead, and has to call ``train.main()``."""

    def limited() -> None:
        if limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    flags = [flag for flag in arguments if flag == "-m"]
    rest = [word for word in arguments if word not in flags]
    program = ["-c", script] if script else [str(ROOT / "train.py")]
    return subprocess.Popen(
        [sys.executable, *program, *flags, "--config-dir", CONF, *rest],
        cwd=folder,
        env=ENVIRONMENT,
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


def alive(folder: Path) -> bool:
    """Whether a process still works in the folder."""
    for process in Path("/proc").glob("[0-9]*/cwd"):
        try:
            if process.resolve() == folder:
                return True
        except OSError:  # it has ended, or is another user's
            continue
    return False

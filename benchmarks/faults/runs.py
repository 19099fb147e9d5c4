"""Starting ``train.py``, breaking it, and comparing what it left with a run that was left alone.

A try takes several runs, and of a short run nearly all is start-up: importing takes seconds. So runs are
forked from this process, which has imported everything, and are killed like any other. The first run
that a row starts is a command line of its own, as a person would type it.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # which every optimizer imports

import trainer.hooks
import trainer.pictures.curves
from trainer import checkpoint

ROOT = Path(__file__).parent.parent.parent
CONF = str(Path(__file__).parent / "conf")
STEPS, LINES = 150, 50  # of a run, and of its record
SAVES = ["checkpoint.every_steps=25", "checkpoint.keep=3", f"trainer.log_every={STEPS // LINES}"]
JOBS = [
    ["data=random", "model=mlp", "loss=mse", "clip=norm", "optimizer=adamw"],
    ["data=random", "model=mlp", "loss=combined", "clip=value", "optimizer=sgd", "scheduler=step"],
    ["data=random", "model=mlp", "loss=l1", "clip=none", "guard=rewind", "trainer.accumulate=2"],
    ["data=digits_denoise", "data.batch_size=16", "model=unet", "model.channels=2", "clip=norm"],
    ["data=fetched", "data.batch_size=4", "model=noisy", "loss=mse", "clip=norm", "optimizer=adam"],
    ["data=fetched", "data.batch_size=4", "data.num_workers=2", "model=noisy", "clip=value"],
]
SEEDS = 3  # for each job, so that a run that is left alone serves many tries
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
PLAIN = "import sys, train\nsys.exit(train.main())"


@dataclass
class Try:
    """What runs and rows ask of the try that this process makes.

    Attributes:
        kept: where runs that were left alone are kept for later tries.
        number: how many tries at the row came before.
        forks: whether the next run is forked; the others are.
    """

    kept: Path = Path()
    number: int = 0
    forks: bool = True


here = Try()


class Run(ForkProcess):
    """A command under way, in a folder, on one thread."""

    def __init__(
        self, folder: Path, words: list[str], limit: int | None, script: str, forks: bool
    ) -> None:
        super().__init__()
        self.folder, self.words, self.limit, self.script, self.forks = (
            folder,
            words,
            limit,
            script,
            forks,
        )
        self.printed = tempfile.TemporaryFile()

    def run(self) -> None:
        """What happens in the new process."""
        os.chdir(self.folder)
        for stream in (1, 2):
            os.dup2(self.printed.fileno(), stream)
        if self.limit is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.limit, self.limit))
        if not self.forks:
            program = ["-c", self.script] if self.script else [str(ROOT / "train.py")]
            os.execve(sys.executable, [sys.executable, *program, *self.words], ENVIRONMENT)
        sys.argv = ["train.py", *self.words]
        trainer.pictures.curves.draw_curves = lambda folder: folder  # half of what a short run costs
        exec(self.script or PLAIN, {"__name__": "__main__"})

    def poll(self) -> int | None:
        """The exit code; None as long as there is none."""
        return self.exitcode

    def send_signal(self, number: int) -> None:
        """Asks it to stop, say."""
        assert self.pid is not None
        os.kill(self.pid, number)


def start(folder: Path, *arguments: str, limit: int | None = None, script: str = "") -> Run:
    """``train.py`` in the folder; no file may grow beyond ``limit`` bytes. A script, if given, is run
    instead, and has to call ``train.main()``."""
    flags = [flag for flag in arguments if flag == "-m"]
    rest = [word for word in arguments if word not in flags]
    run = Run(folder, [*flags, "--config-dir", CONF, *rest], limit, script, here.forks)
    here.forks = True
    run.start()
    return run


def finish(run: Run) -> tuple[int, str]:
    """The exit code, and everything that was printed."""
    run.join(timeout=300)
    if run.exitcode is None:
        run.kill()
        raise TimeoutError(f"not done after 300 s: {' '.join(run.words)}")
    run.printed.seek(0)
    return run.exitcode, run.printed.read().decode()


def recorded(folder: Path, run: Run, lines: int) -> None:
    """Waits until the record has so many lines, or the run has ended."""
    path = folder / "metrics.jsonl"
    while run.poll() is None and (not path.exists() or path.read_bytes().count(b"\n") < lines):
        time.sleep(0.002)


def identical(a: Any, b: Any) -> bool:
    """Whether two states are the same to the bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(identical(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(identical(x, y) for x, y in zip(a, b, strict=True))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else bool(a == b)


def same_run(folder: Path, whole: Path, *besides: str) -> bool:
    """Whether the record is the same, and the last state but for some parts, and nothing temporary is
    left."""
    records = [(path / "metrics.jsonl").read_bytes() for path in (folder, whole)]
    newest = [checkpoint.newest_first(path / "checkpoints")[0] for path in (folder, whole)]
    loaded = [checkpoint.load(path) for path in newest]
    states = [{name: part for name, part in state.items() if name not in besides} for state in loaded]
    return records[0] == records[1] and identical(*states) and not list(folder.rglob("*.partial"))


def prepared(folder: Path, rng: random.Random, jobs: Sequence[list[str]] = JOBS) -> list[str]:
    """Draws one of the jobs and returns its arguments; ``folder/whole`` is a run of it that was left
    alone."""
    job = [*rng.choice(jobs), *SAVES, f"seed={rng.randrange(SEEDS)}", f"trainer.max_steps={STEPS}"]
    kept = here.kept / sha256(" ".join(job).encode()).hexdigest()
    if not kept.exists():
        made = Path(tempfile.mkdtemp(dir=here.kept))
        run = Run(made, ["--config-dir", CONF, *job, "hydra.run.dir=whole"], None, "", forks=True)
        run.start()
        code, out = finish(run)
        assert code == 0, out
        with suppress(OSError):  # the other process has made it meanwhile
            (made / "whole").replace(kept)
    (folder / "whole").symlink_to(kept)
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

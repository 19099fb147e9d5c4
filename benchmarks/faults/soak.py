"""Row 18: a long run whose memory, files and threads stay what they were."""

from __future__ import annotations

import random
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from trainer.checkpoint import Checkpoints
from trainer.data.random import random_regression
from trainer.data.tensors import Data
from trainer.loop import Trainer
from trainer.tensorboard import TensorBoard

EVERY = 500  # steps between two saves


Held = tuple[int, int, int]


class Gauge:
    """A view that notes what the process holds once it has settled, after a fifth of the run, and at the
    last logged step; no more than that, or 10⁶ steps of notes would be what grows.

    Args:
        settled: the step from which on nothing may grow.
    """

    def __init__(self, settled: int) -> None:
        self.settled = settled
        self.early: Held | None = None
        self.late: Held | None = None

    def open(self, data: Data) -> None:
        """There is nothing to prepare."""

    def scalars(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """Bytes of its own, open files, threads."""
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        own = int(status.partition("RssAnon:")[2].split()[0]) * 1024  # a file's pages come and go
        self.late = own, len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
        if self.early is None and step >= self.settled:
            self.early = self.late

    def note(self, line: str) -> None:
        """Nobody watches."""

    def histograms(self, step: int, values: Mapping[str, Mapping[str, Any]]) -> None:
        """There are none."""

    def close(self) -> None:
        """There is nothing to close."""


def soak(folder: Path, rng: random.Random, steps: int) -> bool:
    """After a fifth of the run, memory grows by less than 1 %; files and threads not at all."""
    model = nn.Sequential(nn.Linear(10, 32), nn.BatchNorm1d(32), nn.Dropout(0.1), nn.Linear(32, 1))
    gauge, board = Gauge(steps // 5), TensorBoard(folder)
    Trainer(
        model,
        nn.MSELoss(),
        torch.optim.Adam(model.parameters(), 1e-3, fused=True),
        checkpoints=Checkpoints(every_steps=EVERY),
        max_epochs=None,
        max_steps=steps,
        log_every=100,
        seed=rng.randrange(100),
    ).fit(random_regression(), folder, [gauge, board])
    board.close()
    if not (gauge.early and gauge.late):
        return False
    (memory, *early), (grown, *late) = gauge.early, gauge.late
    if grown >= 1.01 * memory:
        raise RuntimeError(f"memory grew from {memory / 2**20:.1f} to {grown / 2**20:.1f} MiB")
    return early == late

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


class Gauge:
    """A view that notes what the process holds, at every logged step."""

    def __init__(self) -> None:
        self.readings: list[tuple[int, int, int]] = []

    def open(self, data: Data) -> None:
        """There is nothing to prepare."""

    def scalars(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """Resident bytes, open files, threads."""
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
        files = len(list(Path("/proc/self/fd").iterdir()))
        self.readings.append((resident, files, threading.active_count()))

    def note(self, line: str) -> None:
        """Nobody watches."""

    def histograms(self, step: int, values: Mapping[str, Mapping[str, Any]]) -> None:
        """There are none."""

    def close(self) -> None:
        """There is nothing to close."""


def soak(folder: Path, rng: random.Random, steps: int) -> bool:
    """After a fifth of the run, memory grows by less than 1 %; files and threads not at all."""
    model = nn.Sequential(nn.Linear(10, 32), nn.BatchNorm1d(32), nn.Dropout(0.1), nn.Linear(32, 1))
    gauge, board = Gauge(), TensorBoard(folder)
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
    early, late = gauge.readings[len(gauge.readings) // 5], gauge.readings[-1]
    return late[0] < 1.01 * early[0] and late[1:] == early[1:]

"""What `benchmarks.guard` and `benchmarks.diagnostics` train, and how they time it."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from benchmarks.step import BATCH, FEATURES, HIDDEN, NORM, RATE, SAMPLES
from benchmarks.timing import Bar, Entry, attempt, compare
from models.mlp import MLP
from models.unet import UNet
from trainer.clipping import ClipByNorm
from trainer.data.digits import digits_denoise
from trainer.data.random import random_regression
from trainer.data.tensors import TensorData
from trainer.loop import Trainer


def mlp_problem() -> tuple[nn.Module, TensorData]:
    """The network and the data of `benchmarks.step`."""
    torch.manual_seed(0)
    data = random_regression(SAMPLES, FEATURES, 1, val_samples=0, batch_size=BATCH)
    return MLP((FEATURES,), (1,), hidden=(HIDDEN, HIDDEN)), data


def unet_problem() -> tuple[nn.Module, TensorData]:
    """The U-Net and the digits of ``python train.py``, without the validation."""
    torch.manual_seed(0)
    data = digits_denoise()
    data.val, data.validates = (data.val[0][:0], data.val[1][:0]), False
    return UNet((1, 8, 8), (1, 8, 8)), data


PROBLEMS = {"mlp": mlp_problem, "unet": unet_problem}
TURN = 100  # steps: a whole number of the intervals at which snapshots and samples are taken


class Lasting:
    """A training that goes on: each call takes so many steps more and returns the seconds of CPU that
    they took. So a turn may be short, and there may be many, which a busy machine disturbs less.

    Args:
        problem: one of `PROBLEMS`.
        parts: of the `Trainer`.
    """

    def __init__(self, problem: str, **parts: Any) -> None:
        model, self.data = PROBLEMS[problem]()
        self.trainer = Trainer(
            model,
            nn.MSELoss(),
            torch.optim.Adam(model.parameters(), RATE, fused=True),
            clip=ClipByNorm(NORM),
            max_epochs=10**6,  # each call says how many steps
            device="cpu",
            **parts,
        )

    def __call__(self, steps: int) -> float:
        last = self.trainer.step + steps
        self.trainer.limits = (None, last)
        start = time.process_time()
        outcome = self.trainer.fit(self.data)
        taken = time.process_time() - start
        if (outcome["status"], outcome["steps"], outcome["guard"]["skipped"]) != ("completed", last, 0):
            raise RuntimeError(f"it did not train as planned: {outcome}")
        return taken


def overheads(
    part: str, choices: Mapping[str, Callable[[], Any]], limits: Mapping[str, float], seconds: float
) -> tuple[list[list[str]], bool]:
    """Measures and prints what each choice of a part costs in a step of each problem.

    Args:
        part: an argument of `Trainer`.
        choices: makes it; the first is what the others are compared to.
        limits: of the ratios to the first.
        seconds: for each problem, about.

    Returns:
        The rows of the bars, and whether anything crashed.
    """
    rows, crashed = [], False
    for problem in PROBLEMS:
        entries = [Entry(name, Lasting(problem, **{part: make()})) for name, make in choices.items()]
        for entry in entries:
            entry.amount = TURN
            attempt(entry, TURN)  # warms up
        rounds = max(9, round(seconds / sum(attempt(entry, TURN) or seconds for entry in entries)))
        bars = {
            name: Bar(f"{problem}: {name} / {entries[0].name}", limit, at_least=False)
            for name, limit in limits.items()
        }
        rows += compare(f"step of {problem}", entries, bars, rounds)
        crashed |= any(entry.crash for entry in entries)
    return rows, crashed

"""What `benchmarks.guard` and `benchmarks.diagnostics` train, and how they time it."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from benchmarks.step import BATCH, FEATURES, HIDDEN, NORM, RATE, SAMPLES
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


def train(problem: str, parts: Mapping[str, Callable[[], Any]], steps: int) -> float:
    """Seconds of CPU for so many steps, with new ones of these parts of a `Trainer`; a shared machine
    interrupts one turn more than another."""
    model, data = PROBLEMS[problem]()
    trainer = Trainer(
        model,
        nn.MSELoss(),
        torch.optim.Adam(model.parameters(), RATE, fused=True),
        clip=ClipByNorm(NORM),
        max_epochs=None,
        max_steps=steps,
        device="cpu",
        **{name: make() for name, make in parts.items()},
    )
    start = time.process_time()
    outcome = trainer.fit(data)
    taken = time.process_time() - start
    if (outcome["status"], outcome["steps"], outcome["guard"]["skipped"]) != ("completed", steps, 0):
        raise RuntimeError(f"{problem} did not train as planned: {outcome}")
    return taken

"""Runs that one process and several can be compared by."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainer.clipping import (
    AGC,
    SPAM,
    AdaGC,
    AutoClip,
    ClipByLayerNorm,
    ClipByNorm,
    ClipByValue,
    NoClip,
    ZClip,
)
from trainer.data.tensors import TensorData
from trainer.distributed.processes import Processes
from trainer.distributed.torchrun import Place
from trainer.faults.batches import SpoiledData
from trainer.loop import Trainer
from trainer.metrics import Metric

ALONE = Place()
MODES: dict[str, Callable[[], Any]] = {
    "none": NoClip,
    "norm": lambda: ClipByNorm(0.3),
    "norm 1": lambda: ClipByNorm(2.0, 1),
    "norm inf": lambda: ClipByNorm(0.1, math.inf),
    "value": lambda: ClipByValue(0.05),
    "layer_norm": lambda: ClipByLayerNorm(0.1),
    "agc": lambda: AGC(0.02),
    "autoclip": lambda: AutoClip(30.0, window=20, warmup=5),
    "zclip": lambda: ZClip(0.5, warmup=5),
    "adagc": lambda: AdaGC(1.01, warmup=5),
    "spam": lambda: SPAM(10.5, every=10, warmup=5),
}


def data(**changes: Any) -> TensorData:
    """37 samples, so that the last batch of an epoch is 5, of which one process has 2 and one 3."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(37, 3, generator=generator)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.3 * torch.randn(37, 1, generator=generator)
    error = Metric(lambda p, t: (p - t).square().flatten(1).mean(1), higher_is_better=False)
    return TensorData((x, y), (x[:9], y[:9]), batch_size=8, metrics={"mse": error}, **changes)


def spoiled(*, entry: int, value: float, batches: tuple[int, ...] = (2,)) -> SpoiledData:
    """Data some of whose batches, the third or those said, hold the value in one of their rows."""

    def spoil(inputs: Tensor) -> Tensor:
        inputs = inputs.clone()
        inputs[entry, 0] = value
        return inputs

    return SpoiledData(data(), frozenset(batches), spoil)


def net(*more: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), *more, nn.Tanh(), nn.Linear(8, 1))


def two_losses() -> dict[str, nn.Module]:
    return {"l1": nn.L1Loss(), "mse": nn.MSELoss()}


class Partly(nn.Module):
    """A network of which a layer is never used."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = net(), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.used(x)
        return y


def normalized() -> nn.Module:
    """No bias before BatchNorm: its gradient is what rounding leaves, and Adam makes steps of that."""
    torch.manual_seed(0)
    first = nn.Linear(3, 8, bias=False)
    return nn.Sequential(first, nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1))


def trainer(place: Place, model: nn.Module | None = None, **changes: Any) -> Trainer:
    settings: dict[str, Any] = {"max_epochs": None, "max_steps": 12, "log_every": 1, "device": "cpu"}
    model, loss = model or net(), changes.pop("loss", None) or nn.MSELoss()
    parameters = [*model.parameters(), *(loss.parameters() if isinstance(loss, nn.Module) else ())]
    optimizer = torch.optim.Adam(parameters, 0.01, betas=(0.9, 0.9))
    processes = Processes(place=place)
    settings |= {"precision": "fp64", "processes": processes, **changes}
    return Trainer(model, loss, optimizer, **settings)


class Losses:
    """A view that keeps the recorded values of some tags."""

    def __init__(self, *tags: str) -> None:
        self.tags = tags or ("train/loss", "grad/norm", "val/mse")
        self.rows: list[list[float]] = []

    def scalars(self, step: int, epoch: int, values: dict[str, float]) -> None:
        self.rows.append([values[tag] for tag in self.tags if tag in values])

    def note(self, line: str) -> None: ...
    def histograms(self, step: int, values: Any) -> None: ...


def flat(*parts: object) -> list[float]:
    """Parameters and buffers of those that are modules."""
    modules = [part for part in parts if isinstance(part, nn.Module)]
    values = [value for module in modules for value in module.state_dict().values()]
    return [float(entry) for value in values for entry in value.flatten().tolist()]


Run = dict[str, Any]


def trained(place: Place, source: Any = None, tags: tuple[str, ...] = (), **changes: Any) -> Run:
    """What there is to compare of a run."""
    kept, run = Losses(*tags), trainer(place, **changes)
    summary = run.fit(source or data(), views=[kept])
    outcome = {"rows": kept.rows, "weights": flat(run.model, run.loss)}
    return outcome | {name: summary[name] for name in ("guard", "status")}


def close(one: Run, other: Run, tolerance: float = 1e-9) -> bool:
    rows = [pytest.approx(row, rel=tolerance, abs=tolerance) for row in one["rows"]]
    weights = pytest.approx(one["weights"], rel=tolerance, abs=tolerance)
    return bool(other["rows"] == rows and other["weights"] == weights)

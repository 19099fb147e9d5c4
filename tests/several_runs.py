"""Runs that one process and several can be compared by."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainer.data.tensors import TensorData
from trainer.distributed.processes import Processes
from trainer.distributed.torchrun import Place
from trainer.faults.batches import SpoiledData
from trainer.loop import Trainer
from trainer.metrics import Metric

ALONE = Place()


def data(**changes: Any) -> TensorData:
    """37 samples, so that the last batch of an epoch is 5, of which one process has 2 and one 3."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(37, 3, generator=generator)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.3 * torch.randn(37, 1, generator=generator)
    error = Metric(lambda p, t: (p - t).square().flatten(1).mean(1), higher_is_better=False)
    return TensorData((x, y), (x[:9], y[:9]), batch_size=8, metrics={"mse": error}, **changes)


def spoiled(*, entry: int, value: float) -> SpoiledData:
    """Data whose third batch holds the value in one of its rows."""

    def spoil(inputs: Tensor) -> Tensor:
        inputs = inputs.clone()
        inputs[entry, 0] = value
        return inputs

    return SpoiledData(data(), frozenset([2]), spoil)


def net(*more: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), *more, nn.Tanh(), nn.Linear(8, 1))


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

"""Row 8 of the fault matrix: a bad step in training, for every guard and every optimizer in conf/."""

from __future__ import annotations

import copy
import functools
import json
import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from omegaconf import OmegaConf
from test_transaction import build_optimizer, factory, flat, model
from torch import Tensor, nn

from trainer.data.tensors import Batch, TensorData
from trainer.guard import BUFFER_SPIKE, GRADIENT, GRADIENT_SPIKE, LOSS, LOSS_SPIKE, Guard, Off, Skip
from trainer.loop import Trainer

OPTIMIZERS = sorted((ROOT / "conf" / "optimizer").glob("*.yaml"))
ADAM, SGD = (ROOT / "conf" / "optimizer" / f"{name}.yaml" for name in ("adam", "sgd"))
GUARDS = sorted((ROOT / "conf" / "guard").glob("*.yaml"))
KINDS = ["input", "loss", "one gradient", "batch norm"]
STEPS = 6


def build_guard(path: Path, **changes: Any) -> Guard:
    guard: Guard = factory(path)(**changes)
    return guard


REFUSING = [path for path in GUARDS if not isinstance(build_guard(path), Off)]
SPIKING = [path for path in REFUSING if OmegaConf.load(path).spike_z < math.inf]


class Fault:
    """Puts ``value`` into one place of a model in training, in the steps ``at`` and in no other.

    ``loss`` is to be trained with: a mean square that the fault can reach.
    """

    def __init__(self, net: nn.Module, kind: str, value: float, at: Collection[int]) -> None:
        self.kind, self.value, self.at = kind, value, at
        self.step = -1
        self.net = net
        net.register_forward_pre_hook(self._begins)
        if kind == "batch norm":
            net[1].register_forward_pre_hook(lambda layer, inputs: self.spoiled(inputs[0]))
        if kind == "one gradient":
            net[-1].weight.register_hook(self.spoiled)

    def spoiled(self, tensor: Tensor) -> Tensor:
        """The tensor, one entry of it replaced if this is a step of the fault."""
        if not self._now:
            return tensor
        tensor = tensor.clone()
        tensor.view(-1)[-1] = self.value
        return tensor

    def loss(self, predictions: Tensor, targets: Tensor) -> Tensor:
        mean = nn.functional.mse_loss(predictions, targets)
        return mean * self.value if self.kind == "loss" and self._now else mean

    @property
    def _now(self) -> bool:
        return self.net.training and self.step in self.at

    def _begins(self, net: nn.Module, inputs: tuple[Tensor]) -> Tensor:
        if not net.training:
            return inputs[0]
        self.step += 1
        return self.spoiled(inputs[0]) if self.kind == "input" else inputs[0]


class Without(TensorData):
    """The data of an epoch but for one batch."""

    left_out: int

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        inputs, targets = (part.split(self.batch_size) for part in self._shuffled(epoch))
        batches = list(zip(inputs, targets, strict=True))
        del batches[self.left_out]
        yield from batches[start:]


def data(batches: int = STEPS, size: int = 4, without: int | None = None) -> TensorData:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batches * size, 3, generator=generator)
    noise = torch.randn(batches * size, 1, generator=generator)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.3 * noise
    kind = TensorData if without is None else Without
    source = kind((x, y), (x[:4], y[:4]), batch_size=size)
    if isinstance(source, Without):
        source.left_out = without
        source.batches_per_epoch -= 1
    return source


def prepared(
    optimizer: Path,
    guard: Guard,
    steps: int,
    fault: tuple[str, float, Collection[int]] = ("none", 0.0, ()),
    net: nn.Module | None = None,
    **settings: Any,
) -> Trainer:
    """A small run that is to meet the fault."""
    net = net or model()
    loss = Fault(net, *fault).loss
    parts = build_optimizer(optimizer, list(net.parameters()), lr=0.005)
    limits = {"max_steps": max(steps, 1), "max_epochs": None, "log_every": 1}
    return Trainer(net, loss, parts, guard=guard, **limits, **settings)


def state(trainer: Trainer) -> dict[str, Any]:
    """Parameters, buffers and moments."""
    optimizer = trainer.optimizer.state_dict()["state"]
    return copy.deepcopy({"model": trainer.model.state_dict(), "optimizer": optimizer})


@functools.cache
def untouched(optimizer: Path, steps: int, without: int | None = None) -> dict[str, Any]:
    """What a run without guard and fault has after so many steps."""
    trainer = prepared(optimizer, Off(), steps)
    if steps:
        trainer.fit(data(without=without))
    return state(trainer)


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    pairs = list(zip(flat(a), flat(b), strict=True))
    return bool(pairs) and all(torch.equal(x, y) for x, y in pairs)


def numbers(value: Any) -> list[float]:
    """Every number in a state, that of tensors too."""
    if isinstance(value, Tensor):
        return value.flatten().tolist()
    if isinstance(value, dict):
        return [number for each in value.values() for number in numbers(each)]
    if isinstance(value, list | tuple):
        return [number for each in value for number in numbers(each)]
    return [value] if isinstance(value, int | float) else []


def statistics(trainer: Trainer) -> list[float]:
    """All that a refused value must not be in."""
    windows = [list(trainer.guard.losses.values), list(trainer.guard.norms.values)]  # type: ignore
    return numbers([windows, trainer.norms.kept, trainer.clip.state_dict(), trainer.record.last])


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda path: path.stem)
@pytest.mark.parametrize("guard", REFUSING, ids=lambda path: path.stem)
@pytest.mark.parametrize("at", [0, STEPS // 2, STEPS - 1], ids=["first", "middle", "last"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_step_leaves_no_trace(kind: str, at: int, guard: Path, optimizer: Path) -> None:
    left_no_trace(kind, math.nan, at, guard, optimizer)
    if guard == REFUSING[0] or optimizer == ADAM:  # each of both is tried with it; together, with NaN
        left_no_trace(kind, math.inf, at, guard, optimizer)


def left_no_trace(kind: str, value: float, at: int, guard: Path, optimizer: Path) -> None:
    trainer = prepared(optimizer, build_guard(guard), at + 1, (kind, value, [at]))
    summary = trainer.fit(data())
    assert same(state(trainer), untouched(optimizer, at))
    assert summary["steps"] == at + 1
    assert summary["guard"]["skipped"] == 1
    causes = summary["guard"]["causes"]
    assert causes == dict.fromkeys(causes, 0) | {GRADIENT if kind == "one gradient" else LOSS: 1}
    assert len(trainer.guard.losses.values) == trainer.norms.seen == at  # type: ignore[attr-defined]
    assert all(map(math.isfinite, statistics(trainer)))


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda path: path.stem)
@pytest.mark.parametrize("guard", SPIKING, ids=lambda path: path.stem)
@pytest.mark.parametrize("at", [0, STEPS // 2], ids=["first", "middle"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_run_goes_on_as_if_the_bad_batch_had_not_been_there(
    kind: str, at: int, guard: Path, optimizer: Path
) -> None:
    trainer = prepared(optimizer, build_guard(guard), STEPS, (kind, math.nan, [at]))
    assert trainer.fit(data())["status"] == "completed"
    assert same(state(trainer), untouched(optimizer, STEPS - 1, without=at))


@pytest.mark.parametrize("kind", ["input", "loss", "batch norm"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_without_a_guard_a_loss_that_is_not_finite_ends_the_run(kind: str, value: float) -> None:
    summary = prepared(ADAM, Off(), STEPS, (kind, value, [2])).fit(data())
    assert (summary["status"], summary["steps"], summary["guard"]["skipped"]) == ("diverged", 3, 0)


@pytest.mark.parametrize("accumulate", [2, 3])
@pytest.mark.parametrize("kind", KINDS)
def test_one_bad_batch_of_an_accumulated_step_refuses_all_of_it(kind: str, accumulate: int) -> None:
    bad = accumulate + 1  # the second batch of the second step
    fault = (kind, math.nan, [bad])
    trainer = prepared(ADAM, Skip(), 2, fault, accumulate=accumulate)
    trainer.fit(data())
    before = prepared(ADAM, Skip(), 1, accumulate=accumulate)
    before.fit(data())
    assert trainer.guard.skipped == 1
    assert same(state(trainer), state(before))


@pytest.mark.parametrize("kind", KINDS)
def test_the_record_holds_no_value_of_a_refused_step(tmp_path: Path, kind: str) -> None:
    fault = (kind, math.nan, [1, 4])
    prepared(ADAM, Skip(), STEPS, fault).fit(data(), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    losses = {line["step"] for line in lines if "train/loss" in line}
    assert losses == {1, 3, 4, 6}
    assert all(map(math.isfinite, numbers(lines)))
    assert lines[-1]["guard/skipped"] == 2


def plain() -> nn.Sequential:
    """A model in which a large input gives a large loss; normalization would hide it."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 1))


def spiking(optimizer: Path, guard: Path, steps: int, at: int) -> tuple[Trainer, dict[str, Any]]:
    """A run whose inputs are far too large in one step."""
    trainer = prepared(optimizer, build_guard(guard), steps, ("input", 1e6, [at]), net=plain())
    return trainer, trainer.fit(data(48, size=8))


@functools.cache
def unspiked(optimizer: Path, steps: int) -> dict[str, Any]:
    """What the same run has after so many steps without it."""
    return state(spiking(optimizer, SPIKING[0], steps, steps)[0])


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda path: path.stem)
@pytest.mark.parametrize("guard", SPIKING, ids=lambda path: path.stem)
@pytest.mark.parametrize("at", [32, 40, 47], ids=["at once", "middle", "last"])
def test_a_spike_is_refused_once_the_window_is_full(at: int, guard: Path, optimizer: Path) -> None:
    trainer, summary = spiking(optimizer, guard, at + 1, at)
    assert summary["status"] == "completed"
    causes = summary["guard"]["causes"]
    assert causes[LOSS_SPIKE] + causes[GRADIENT_SPIKE] == summary["guard"]["skipped"] == 1
    assert same(state(trainer), unspiked(optimizer, at))
    assert max(statistics(trainer)) < 1e3
    if at == 32:
        _, summary = spiking(optimizer, guard, 48, at)
        assert summary["guard"]["skipped"] == 1  # nothing of it is left to refuse


@pytest.mark.parametrize("kind", ["input", "batch norm"])
def test_a_finite_input_that_overflows_a_buffer_is_refused(kind: str) -> None:
    """BatchNorm divides by the overflowed variance: output, loss and gradient all stay finite."""
    trainer = prepared(ADAM, Skip(), 3, (kind, 1e20, [2]))
    trainer.fit(data())
    assert trainer.guard.skipped == 1
    assert same(state(trainer), untouched(ADAM, 2))


@pytest.mark.parametrize("ahead", [False, True], ids=["host", "device"])
def test_an_outlier_that_only_batch_normalization_sees_does_not_ruin_its_statistics(ahead: bool) -> None:
    """Normalized, a batch a thousand times too large gives an ordinary loss and gradient, but a running
    variance in the ten thousands: without the guard's look at it validation would be lost."""

    def spoil(inputs: Tensor, targets: Tensor, generator: torch.Generator) -> Batch:
        inputs = inputs.clone()
        inputs[8 * 44 : 8 * 45] *= 1e3
        return inputs, targets

    def trained(guard: Guard, spoilt: bool) -> tuple[Trainer, dict[str, Any]]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
        x = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
        pair = (x, x.sum(1, keepdim=True))
        source = TensorData(pair, pair, batch_size=8, transform=spoil if spoilt else None)
        optimizer = torch.optim.Adam(net.parameters(), 1e-2, fused=True)
        trainer = Trainer(net, nn.MSELoss(), optimizer, guard=guard, max_epochs=1, log_every=1)
        trainer.runs_ahead = ahead
        return trainer, trainer.fit(source)

    _, healthy = trained(Skip(), spoilt=False)
    _, ruined = trained(Off(), spoilt=True)
    trainer, guarded = trained(Skip(), spoilt=True)
    assert guarded["guard"]["causes"][BUFFER_SPIKE] == guarded["guard"]["skipped"] == 1
    assert max(buffer.max() for buffer in trainer.model.buffers()) < 100
    losses = [run["metrics"]["val/loss"]["last"] for run in (healthy, ruined, guarded)]
    assert losses[1] > 2 * losses[0]
    assert losses[2] == pytest.approx(losses[0], rel=0.1)

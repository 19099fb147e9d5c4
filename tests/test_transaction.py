"""A refused step leaves no trace, for every optimizer in conf/; a committed one is right."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra.utils
import pytest
import torch
from conftest import ROOT
from omegaconf import OmegaConf
from torch import Tensor, nn

from trainer.clipping import ClipByNorm, Clipped
from trainer.data.tensors import Batch, TensorData
from trainer.loop import Trainer
from trainer.transaction import Transaction

OPTIMIZERS = sorted((ROOT / "conf" / "optimizer").glob("*.yaml"))
FUSED = [path for path in OPTIMIZERS if "fused" in OmegaConf.load(path)]


@functools.cache
def factory(path: Path) -> Callable[..., Any]:
    """What the file names, with its values; Hydra takes longer for it than a small run does."""
    return hydra.utils.instantiate(OmegaConf.load(path), _partial_=True, _convert_="all")


def build_optimizer(path: Path, parameters: list[nn.Parameter], **changes: Any) -> Any:
    return factory(path)(parameters, **changes)


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 1))


def data(poison: float | None = None, at: tuple[int, ...] = (), epochs: int = 1) -> TensorData:
    """Ten batches of four; in each of the batches ``at`` one input is the poison."""
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(40, 3, generator=generator), torch.randn(40, 1, generator=generator)

    def spoil(inputs: Tensor, targets: Tensor, generator: torch.Generator) -> Batch:
        inputs = inputs.clone()
        for batch in at:
            inputs[4 * batch + 1, 2] = poison
        return inputs, targets

    transform = None if poison is None else spoil
    return TensorData((x, y), (x, y), batch_size=4, transform=transform)


def snapshot(trainer: Trainer) -> dict[str, Any]:
    return copy.deepcopy(
        {"model": trainer.model.state_dict(), "optimizer": trainer.optimizer.state_dict()["state"]}
    )


def flat(state: Any) -> list[Tensor]:
    if isinstance(state, Tensor):
        return [state]
    values = state.values() if isinstance(state, dict) else []
    return [tensor for value in values for tensor in flat(value)]


@pytest.mark.parametrize("path", OPTIMIZERS, ids=lambda p: p.stem)
@pytest.mark.parametrize("poison", [math.nan, math.inf])
@pytest.mark.parametrize("at", [0, 5, 9], ids=["first", "middle", "last"])
def test_a_refused_step_leaves_weights_buffers_and_moments_bit_for_bit(
    path: Path, poison: float, at: int
) -> None:
    """Clipped, so that the coefficient rides; without a clip in test_faults_in_training.py."""

    def stopped_after(steps: int) -> Trainer:
        net = model()
        optimizer = build_optimizer(path, list(net.parameters()))
        clip = ClipByNorm(0.1)
        trainer = Trainer(net, nn.MSELoss(), optimizer, clip=clip, max_steps=steps, max_epochs=None)
        trainer.fit(data(poison, (at,)))
        return trainer

    after = snapshot(stopped_after(at + 1))
    if at == 0:
        before = copy.deepcopy({"model": model().state_dict(), "optimizer": {}})
    else:
        before = snapshot(stopped_after(at))
    tensors = [flat(state) for state in (before, after)]
    assert len(tensors[0]) == len(tensors[1])
    assert all(torch.equal(a, b) for a, b in zip(*tensors, strict=True))


@pytest.mark.parametrize("path", OPTIMIZERS, ids=lambda p: p.stem)
def test_a_bad_first_step_does_not_spoil_the_second(path: Path) -> None:
    # Fused SGD allocates its momentum uninitialised and a refusal by found_inf would keep that.
    net = model()
    optimizer = build_optimizer(path, list(net.parameters()))
    summary = Trainer(net, nn.MSELoss(), optimizer, max_epochs=2).fit(data(math.nan, (0,)))
    assert summary["status"] == "completed"
    assert summary["guard"]["skipped"] == 2
    assert summary["guard"]["causes"]["non-finite loss"] == 2
    assert all(torch.isfinite(tensor).all() for tensor in flat(net.state_dict()))


def test_refused_values_enter_no_statistic() -> None:
    net = model()
    trainer = Trainer(net, nn.MSELoss(), torch.optim.SGD(net.parameters(), 0.01), max_epochs=1)
    summary = trainer.fit(data(math.inf, (2, 3, 7)))
    assert trainer.norms.seen == 7
    assert math.isfinite(summary["grad_norm"]["max"])
    assert math.isfinite(summary["metrics"]["train/loss"]["last"])


@pytest.mark.parametrize("path", FUSED, ids=lambda p: p.stem)
def test_riding_on_the_fused_step_equals_multiplying_first(path: Path) -> None:
    nets, coefficient = (model(), model()), torch.tensor(0.37)
    for net, fused in zip(nets, (True, False), strict=True):
        optimizer = build_optimizer(path, list(net.parameters()), fused=fused)
        transaction = Transaction([net], optimizer)
        assert transaction.rides == fused
        generator = torch.Generator().manual_seed(2)
        for _ in range(10):
            for p in net.parameters():
                p.grad = torch.randn(p.shape, generator=generator)
            gradients = [p.grad for p in net.parameters() if p.grad is not None]
            transaction.commit(gradients, Clipped(coefficient))
    for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("rate", [0.5, torch.tensor(0.5)])
def test_the_learning_rate_is_multiplied_for_one_step_alone(rate: Any) -> None:
    weight = nn.Parameter(torch.zeros(1))
    transaction = Transaction([], torch.optim.SGD([weight], rate))
    for factor in (1.0, 0.5):
        weight.grad = torch.ones(1)
        transaction.commit([weight.grad], Clipped(lr_factor=0.25), factor)
    assert weight.item() == pytest.approx(-0.5 * 0.25 * 1.5)
    assert transaction.optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize("path", OPTIMIZERS, ids=lambda p: p.stem)
def test_float64_parameters_do_not_ride_on_a_float32_scale(path: Path) -> None:
    net = model().double()
    assert not Transaction([net], build_optimizer(path, list(net.parameters()))).rides


def test_rolling_back_restores_batch_norm() -> None:
    net = model()
    transaction = Transaction([net], torch.optim.SGD(net.parameters(), 0.1))
    before = copy.deepcopy(net.state_dict())
    transaction.begin()
    net(torch.full((4, 3), math.nan))
    assert not torch.isfinite(net[1].running_mean).all()
    transaction.roll_back()
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())

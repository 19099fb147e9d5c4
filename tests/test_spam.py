"""SPAM: entries held to their own past, moments that start again, and no entry shut off for good."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from clips import clip, same, tensors
from torch import nn

from trainer.clipping import SPAM, Clipped
from trainer.data.random import random_regression
from trainer.loop import Trainer
from trainer.transaction import Transaction


def parts(mode: SPAM, kind: Any = torch.optim.AdamW, **settings: Any) -> tuple[nn.Parameter, Any]:
    net = nn.ParameterList([torch.zeros(4)])
    optimizer = kind(net.parameters(), lr=0.01, **settings)
    mode.bind(net, optimizer)
    return net[0], optimizer


def step(mode: SPAM, weight: nn.Parameter, optimizer: Any, *grad: float) -> torch.Tensor:
    weight.grad = torch.tensor(grad)
    after = clip(mode, [weight.grad])[0]
    optimizer.step()
    return after


def test_an_entry_is_held_to_the_root_of_theta_v() -> None:
    mode = SPAM()
    weight, optimizer = parts(mode)
    for _ in range(20):
        step(mode, weight, optimizer, 0.1, 0.2, 0.3, 0.0)
    v = optimizer.state[weight]["exp_avg_sq"].clone()
    after = step(mode, weight, optimizer, -9.0, 0.2, 9.0, 0.5)
    limits = torch.sqrt(5000 * v)
    assert 0.3 < limits[0] < limits[2] < 9.0
    torch.testing.assert_close(after, torch.tensor([-limits[0], 0.2, limits[2], 0.5]))
    # The public port in pytorch_optimizer clips a masked copy: for a matrix 1e6 stays 1e6 in the
    # gradient, where it should be 2.18.
    assert torch.equal(weight.grad, after)


def test_an_entry_without_a_past_is_not_shut_off() -> None:
    # The authors' code: an entry whose first gradient comes after step 20 is clipped to √(5000·0) = 0;
    # its v was still 0 and its weight unmoved after 465 steps, where another had moved by 4.9.
    mode = SPAM()
    weight, optimizer = parts(mode, torch.optim.Adam)
    for _ in range(25):
        step(mode, weight, optimizer, 0.1, 0.0, 0.0, 0.0)
    after = step(mode, weight, optimizer, 0.1, 0.1, -50.0, 0.0)
    assert after.tolist() == pytest.approx([0.1, 0.1, -1.0, 0.0])
    for _ in range(10):
        after = step(mode, weight, optimizer, 0.1, 0.1, -50.0, 0.0)
    assert after.tolist() == pytest.approx([0.1, 0.1, -50.0, 0.0])
    assert (weight[:3].abs() > 0.01).all()


def test_a_huge_first_gradient_does_not_overflow_the_second_moment() -> None:
    mode = SPAM()
    weight, optimizer = parts(mode)
    step(mode, weight, optimizer, 3e30, 0.1, 0.1, 0.1)
    assert optimizer.state[weight]["exp_avg_sq"].isfinite().all()


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("amsgrad", [True, False])
def test_after_a_restart_adam_goes_on_as_if_new(fused: bool, amsgrad: bool) -> None:
    mode = SPAM(every=5, warmup=0)
    weight, optimizer = parts(mode, fused=fused, amsgrad=amsgrad)
    transaction = Transaction([], optimizer)

    def take(grad: float) -> Clipped:
        weight.grad = torch.full((4,), grad)
        clipped = mode([weight.grad], torch.tensor(2 * grad))
        transaction.commit([weight.grad], clipped)
        return clipped

    for _ in range(4):
        take(0.3)
    before = weight.detach().clone()
    moments = {name: id(tensor) for name, tensor in optimizer.state[weight].items()}
    take(0.2)  # ends the period; its gradient is the first of the new moments
    take(0.1)
    assert {name: id(tensor) for name, tensor in optimizer.state[weight].items()} == moments
    new = nn.Parameter(before)
    fresh = torch.optim.AdamW([new], lr=0.01, fused=fused, amsgrad=amsgrad)
    for grad in (0.2, 0.1):
        new.grad = torch.full((4,), grad)
        fresh.step()
    assert torch.equal(weight, new)
    assert same(tensors(optimizer.state[weight]), tensors(fresh.state[new]))


def test_the_learning_rate_rises_by_a_cosine_after_a_restart_and_only_then() -> None:
    mode = SPAM(every=6, warmup=4)
    weight, optimizer = parts(mode)
    factors = []
    for _ in range(14):
        weight.grad = torch.ones(4)
        factors.append(mode([weight.grad], torch.tensor(2.0)).lr_factor)
        optimizer.step()
    rise = [(1 - math.cos(math.pi * k / 4)) / 2 for k in (1, 2, 3, 4)]
    assert factors == pytest.approx([1.0] * 5 + rise + [1.0] * 2 + rise[:3])


def trainer(steps: int, optimizer: Any = torch.optim.AdamW) -> Trainer:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(10, 8), nn.Tanh(), nn.Linear(8, 1))
    clip = SPAM(every=7, warmup=3)
    steps_by = optimizer(net.parameters(), lr=0.01)
    return Trainer(net, nn.MSELoss(), steps_by, clip=clip, max_epochs=None, max_steps=steps)


@pytest.mark.parametrize("cut", [5, 6, 7, 8, 20])
def test_a_run_cut_around_a_restart_ends_the_same(cut: int) -> None:
    whole, first, rest = trainer(24), trainer(cut), trainer(24)
    data = random_regression(64, 10, 1, val_samples=4, batch_size=8)
    whole.fit(data)
    first.fit(data)
    rest.load_state_dict(copy.deepcopy(first.state_dict()))
    rest.fit(data)
    assert same(tensors(rest.optimizer.state_dict()), tensors(whole.optimizer.state_dict()))
    assert same(list(rest.model.parameters()), list(whole.model.parameters()))


def test_an_optimizer_without_the_moments_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"^clip=spam needs .*, got SGD; use optimizer=adamw, or .*$"):
        trainer(1, torch.optim.SGD)
    with pytest.raises(ValueError, match=r"^clip\.theta must be > .* = 10000, got 5000"):
        parts(SPAM(), betas=(0.9, 0.9999))
    with pytest.raises(ValueError, match=r"call bind\(model, optimizer\) first"):
        SPAM()([torch.ones(1)], torch.tensor(1.0))


@pytest.mark.parametrize(
    "bad", [{"theta": 1}, {"every": 0}, {"warmup": 500}, {"max_value": 0}, {"warmup": -1}]
)
def test_an_argument_out_of_range_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(bad))} must be"):
        SPAM(**bad)

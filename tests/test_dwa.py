"""Dynamic weight average: the formula over windows, what counts for nothing, state."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from losses.dwa import DynamicWeightAverageLoss
from trainer.transaction import Transaction

ZERO = torch.zeros(4)


def loss(**settings: Any) -> DynamicWeightAverageLoss:
    return DynamicWeightAverageLoss({"l1": nn.L1Loss(), "mse": nn.MSELoss()}, **settings)


def feed(part: DynamicWeightAverageLoss, *errors: float) -> None:
    for error in errors:
        part(ZERO, torch.full((4,), error))


def weights(part: DynamicWeightAverageLoss) -> Tensor:
    training = part.training
    _, recorded = part.eval()(ZERO, ZERO)
    part.train(training)
    return torch.stack([recorded["weight_l1"], recorded["weight_mse"]])


def formula(last: list[float], before: list[float], temperature: float) -> Tensor:
    return 2 * torch.softmax(torch.tensor(last) / torch.tensor(before) / temperature, 0)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_the_weights_are_the_formula_over_the_last_two_windows(temperature: float) -> None:
    part = loss(window=2, temperature=temperature)
    feed(part, 9, 9, 3, 5, 1, 2)  # means of l1 6/…, the last two windows: 4 and 1.5; of mse: 17 and 2.5
    expected = formula([1.5, 2.5], [4.0, 17.0], temperature)
    torch.testing.assert_close(weights(part), expected)
    feed(part, 100)  # of a window that is not full
    torch.testing.assert_close(weights(part), expected)


def test_the_total_is_the_weighted_sum_and_the_term_that_falls_slowly_weighs_more() -> None:
    part = loss(window=1)
    feed(part, 4, 1)
    total, recorded = part(ZERO, torch.full((4,), 2.0))
    assert list(recorded) == ["l1", "mse", "weight_l1", "weight_mse"]
    assert recorded["weight_l1"] > 1 > recorded["weight_mse"]
    torch.testing.assert_close(total, 2 * recorded["weight_l1"] + 4 * recorded["weight_mse"])
    torch.testing.assert_close(recorded["weight_l1"] + recorded["weight_mse"], torch.tensor(2.0))


@pytest.mark.parametrize("calls", range(6))
def test_until_two_windows_are_full_all_weigh_alike(calls: int) -> None:
    part = loss(window=3)
    feed(part, *range(calls))
    assert weights(part).tolist() == [1, 1]


def test_evaluation_and_what_is_not_finite_count_for_nothing() -> None:
    part, plain = loss(window=2), loss(window=2)
    feed(plain, 4, 5, 1, 2)
    feed(part, 4, math.nan, 5, 1)
    feed(part.eval(), 1000)
    feed(part.train(), math.inf, 2)
    assert torch.equal(weights(part), weights(plain))


@pytest.mark.parametrize("errors", [(0, 0), (0, 1), (1, 0), (1e-18, 1e18), (1e18, 1e-18)], ids=str)
def test_the_weights_are_finite_whatever_the_terms_were(errors: tuple[float, ...]) -> None:
    part = loss(window=1)
    feed(part, *errors)
    assert weights(part).isfinite().all()
    assert abs(weights(part).sum() - 2) < 1e-6


def test_the_statistics_are_saved_in_the_middle_of_a_window() -> None:
    whole, rest = loss(window=2), loss(window=2)
    feed(whole, 4, 5, 1)
    rest.load_state_dict(whole.state_dict())
    feed(whole, 2)
    feed(rest, 2)
    assert torch.equal(weights(whole), weights(rest))
    assert weights(rest)[0] != 1


def test_a_refused_step_takes_its_statistics_back() -> None:
    part = loss(window=1)
    feed(part, 4, 1)
    transaction = Transaction([part], torch.optim.SGD([torch.zeros(1)]))
    before = weights(part)
    transaction.begin()
    feed(part, 1e6)
    assert not torch.equal(weights(part), before)
    transaction.roll_back()
    assert torch.equal(weights(part), before)


def test_the_weights_take_no_gradient() -> None:
    part = loss(window=1)
    feed(part, 4, 1)
    predictions = torch.zeros(4, requires_grad=True)
    total, recorded = part(predictions, torch.full((4,), 2.0))
    (slope,) = torch.autograd.grad(total, predictions)
    torch.testing.assert_close(
        slope, -(recorded["weight_l1"] + 4 * recorded["weight_mse"]) / 4 * torch.ones(4)
    )


def test_stacked_members_are_each_their_own() -> None:
    members = [loss(window=1) for _ in range(3)]
    _, buffers = torch.func.stack_module_state(members)
    errors = torch.tensor([[4.0, 1.0, 2.0], [1.0, 1.0, 2.0], [1.0, 9.0, 2.0]])

    def one(state: Any, error: Tensor) -> Tensor:
        return torch.func.functional_call(members[0], state, (ZERO, error.expand(4)))[0]

    for column in errors.T:
        totals = torch.vmap(one)(buffers, column)
    for k, member in enumerate(loss(window=1) for _ in range(3)):
        feed(member, *errors[k, :2].tolist())
        own, _ = member(ZERO, errors[k, 2].expand(4))
        torch.testing.assert_close(totals[k], own)
        torch.testing.assert_close(buffers["earlier"][k], member.earlier)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0}, "temperature must be a finite number >= 0.01, got 0"),
        ({"temperature": math.inf}, "temperature must be a finite number >= 0.01, got inf"),
        ({"window": 0}, "window must be a whole number >= 1, got 0"),
        ({"window": 1.5}, "window must be a whole number >= 1, got 1.5"),
        ({"window": True}, "window must be a whole number >= 1, got True"),
    ],
)
def test_a_number_out_of_range_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        loss(**settings)

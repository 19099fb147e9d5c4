"""The combined loss: published values, closed-form gradient, terms by name, weights that are refused."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from losses.combined import CombinedLoss

PREDICTIONS = torch.arange(1.0, 6.0)
NEAR = PREDICTIONS + 0.1
FAR = torch.where(PREDICTIONS == 3, torch.tensor(10.0), NEAR)
WEIGHT = st.floats(0, 10)


@pytest.mark.parametrize(
    ("targets", "total", "terms"),
    [
        (NEAR, 0.0720, {"l1": 0.1000, "smooth_l1": 0.0050, "mse": 0.0100}),
        (FAR, 1.9176, {"l1": 1.4800, "smooth_l1": 1.3040, "mse": 9.8080}),
    ],
    ids=["0.1 everywhere", "third target 10"],
)
def test_the_published_values(targets: Tensor, total: float, terms: dict[str, float]) -> None:
    loss, parts = CombinedLoss(alpha=0.7, beta=0.3, gamma=0.05)(PREDICTIONS, targets)
    assert round(loss.item(), 4) == total
    assert {name: round(value.item(), 4) for name, value in parts.items()} == terms


def test_those_weights_are_the_defaults() -> None:
    loss, _ = CombinedLoss()(PREDICTIONS, FAR)
    assert round(loss.item(), 4) == 1.9176


@settings(deadline=None, max_examples=40)
@given(
    alpha=WEIGHT,
    beta=WEIGHT,
    gamma=WEIGHT,
    differences=st.lists(st.floats(-5, 5), min_size=1, max_size=9),
)
def test_value_and_gradient_are_the_formulas(
    alpha: float, beta: float, gamma: float, differences: list[float]
) -> None:
    if not any((alpha, beta, gamma)):
        return
    d = torch.tensor(differences, dtype=torch.float64)
    predictions = d.clone().requires_grad_()
    loss, terms = CombinedLoss(alpha, beta, gamma)(predictions, torch.zeros_like(d))
    smooth = torch.where(d.abs() < 1, d**2 / 2, d.abs() - 0.5)
    expected = {"l1": d.abs().mean(), "smooth_l1": smooth.mean(), "mse": (d**2).mean()}
    torch.testing.assert_close(terms, expected, rtol=1e-12, atol=1e-14, check_dtype=True)
    total = alpha * expected["l1"] + beta * expected["smooth_l1"] + gamma * expected["mse"]
    torch.testing.assert_close(loss.detach(), total, rtol=1e-12, atol=1e-14)
    loss.backward()
    slope = (alpha * d.sign() + beta * d.clamp(-1, 1) + gamma * 2 * d) / len(d)
    torch.testing.assert_close(predictions.grad, slope, rtol=1e-12, atol=1e-14)


def test_the_terms_carry_no_weight() -> None:
    light, heavy = (CombinedLoss(w, w, w)(PREDICTIONS, FAR) for w in (0.5, 2.0))
    assert light[1] == heavy[1]
    assert heavy[0] == 4 * light[0]


@pytest.mark.parametrize("name", ["alpha", "beta", "gamma"])
def test_a_single_weight_leaves_a_single_loss(name: str) -> None:
    weights = {"alpha": 0.0, "beta": 0.0, "gamma": 0.0, name: 1}
    loss, terms = CombinedLoss(**weights)(PREDICTIONS, FAR)
    assert loss == terms[{"alpha": "l1", "beta": "smooth_l1", "gamma": "mse"}[name]]


@pytest.mark.parametrize("name", ["alpha", "beta", "gamma"])
@pytest.mark.parametrize("bad", [-1, -1e-9, math.nan, math.inf, True, None, "0.7"])
def test_a_weight_that_is_none_is_refused_by_name_and_value(name: str, bad: Any) -> None:
    message = rf"^{name} must be a finite number >= 0, got {bad!r}$"
    with pytest.raises(ValueError, match=message):
        CombinedLoss(**{name: bad})


def test_the_least_weight_there_is_counts() -> None:
    assert CombinedLoss(0, 0, 5e-324)(PREDICTIONS, FAR)[0] >= 0


def test_all_weights_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="alpha, beta and gamma must not all be 0"):
        CombinedLoss(0, 0.0, 0)


def test_a_weight_for_each_member_gives_each_members_own_loss() -> None:
    alpha, gamma = torch.tensor([0.0, 0.5, 2.0]), torch.tensor([0.1, 0.0, 3.0])
    generator = torch.Generator().manual_seed(0)
    predictions, targets = (torch.randn(3, 4, 5, generator=generator) for _ in range(2))
    predictions.requires_grad_()
    total, terms = CombinedLoss(alpha, 0.3, gamma)(predictions, targets)
    assert total.shape == (3,)
    (slope,) = torch.autograd.grad(total.sum(), predictions)
    for k in range(3):
        own = predictions[k].detach().requires_grad_()
        expected, parts = CombinedLoss(alpha[k].item(), 0.3, gamma[k].item())(own, targets[k])
        torch.testing.assert_close(total[k], expected)
        torch.testing.assert_close({name: term[k] for name, term in terms.items()}, parts)
        torch.testing.assert_close(slope[k], torch.autograd.grad(expected, own)[0])


def test_vmap_goes_through_it_with_its_weights_as_buffers() -> None:
    alpha = torch.tensor([0.0, 0.5, 2.0])
    predictions, targets = torch.randn(3, 4), torch.randn(3, 4)
    loss = CombinedLoss(alpha)

    def one(weight: Tensor, p: Tensor, t: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return torch.func.functional_call(loss, {"alpha": weight}, (p, t))

    mapped = torch.vmap(one)(alpha, predictions, targets)
    torch.testing.assert_close(mapped, loss(predictions, targets))


def test_a_weight_that_is_a_tensor_moves_with_the_loss_but_is_no_state() -> None:
    loss = CombinedLoss(torch.tensor(0.5)).double()
    total, _ = loss(PREDICTIONS.double(), FAR.double())
    assert total == CombinedLoss(0.5)(PREDICTIONS.double(), FAR.double())[0]
    assert loss.state_dict() == {}
    assert loss.alpha.dtype == torch.float64


@pytest.mark.parametrize(
    ("bad", "got"),
    [
        (torch.tensor([0.1, -1.0]), "must be a finite number >= 0 for each member, got [0.1"),
        (torch.tensor([0.1, math.nan]), "must be a finite number >= 0 for each member, got [0.1"),
        (torch.tensor(math.inf), "must be a finite number >= 0 for each member, got inf"),
        (torch.zeros(2, 2), "must be a number, or a float tensor () or (members,), got"),
        (torch.ones(2, dtype=torch.int64), "must be a number, or a float tensor () or (members,), got"),
    ],
)
def test_a_weight_of_any_member_that_is_none_is_refused(bad: Tensor, got: str) -> None:
    with pytest.raises(ValueError, match=re.escape(f"alpha {got}")):
        CombinedLoss(bad)


def test_a_member_without_any_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="must not all be 0"):
        CombinedLoss(torch.tensor([0.0, 1.0]), 0, torch.tensor([0.0, 0.5]))

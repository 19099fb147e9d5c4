"""Uncertainty weighting, and what it shares with the other weightings: terms by name."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from losses.combined import CombinedLoss
from losses.uncertainty import UncertaintyLoss

P, T = torch.zeros(4), torch.full((4,), 2.0)  # l1 is 2, mse is 4


def terms() -> dict[str, nn.Module]:
    return {"l1": nn.L1Loss(), "mse": nn.MSELoss()}


def with_s(*s: float) -> UncertaintyLoss:
    loss = UncertaintyLoss(terms())
    loss.s.data = torch.tensor(s)
    return loss


def test_the_value_and_gradient_are_the_formula() -> None:
    loss = with_s(0.5, -0.3)
    total, recorded = loss(P, T)
    weights = torch.exp(torch.tensor([-0.5, 0.3]))
    assert (
        round(total.item(), 4) == round(2 * weights[0].item() + 4 * weights[1].item() + 0.2, 4) == 6.8125
    )
    assert list(recorded) == ["l1", "mse", "weight_l1", "weight_mse"]
    expected = torch.tensor([2.0, 4.0, *weights])
    torch.testing.assert_close(torch.stack(list(recorded.values())).detach(), expected)
    (slope,) = torch.autograd.grad(total, loss.s)
    torch.testing.assert_close(slope, 1 - weights * torch.tensor([2.0, 4.0]))


def test_what_is_recorded_of_the_weights_takes_no_gradient() -> None:
    _, recorded = with_s(0.5, -0.3)(P, T)
    assert not recorded["weight_l1"].requires_grad


def test_training_it_brings_the_weights_to_one_over_the_terms() -> None:
    loss = UncertaintyLoss(terms())
    optimizer = torch.optim.SGD(loss.parameters(), 0.2)
    for _ in range(200):
        optimizer.zero_grad()
        loss(P, T)[0].backward()
        optimizer.step()
    _, recorded = loss(P, T)
    weights = torch.stack([recorded["weight_l1"], recorded["weight_mse"]])
    torch.testing.assert_close(weights, torch.tensor([1 / 2, 1 / 4]))


def test_functions_and_losses_with_terms_of_their_own_may_be_weighed() -> None:
    loss = UncertaintyLoss({"mix": CombinedLoss(1, 0, 0), "mse": functional.mse_loss})
    total, recorded = loss(P, T)
    assert total == 6
    assert (recorded["mix"], recorded["mse"]) == (2, 4)


def test_a_term_moves_and_saves_with_the_loss() -> None:
    weighted = nn.CrossEntropyLoss(weight=torch.ones(3))
    loss = UncertaintyLoss({"ce": weighted, "again": nn.CrossEntropyLoss()}).double()
    assert weighted.weight.dtype == torch.float64
    assert "s" in loss.state_dict()
    assert len(loss.state_dict()) == 2


def test_stacked_members_are_each_their_own() -> None:
    members = [with_s(0.1 * k, -0.2 * k) for k in range(3)]
    states = torch.func.stack_module_state(members)
    predictions, targets = torch.randn(3, 4, 5), torch.randn(3, 4, 5)

    def one(p: Any, b: Any, x: Tensor, y: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return torch.func.functional_call(members[0], (p, b), (x, y))

    total, recorded = torch.vmap(one)(*states, predictions, targets)
    for k, member in enumerate(members):
        own, parts = member(predictions[k], targets[k])
        torch.testing.assert_close(total[k], own)
        torch.testing.assert_close({name: value[k] for name, value in recorded.items()}, parts)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({}, "terms must be at least two losses by name, got {}"),
        ({"l1": nn.L1Loss()}, "terms must be at least two losses by name, got"),
        ([nn.L1Loss(), nn.MSELoss()], "terms must be at least two losses by name, got"),
        ({"l1": nn.L1Loss(), "mse": 0.5}, "terms must be losses, got 0.5 for mse"),
        (
            {"weight_l1": nn.L1Loss(), "l1": nn.L1Loss()},
            "terms must have names that do not open with weight_, got 'weight_l1'",
        ),
        (
            {1: nn.L1Loss(), "l1": nn.L1Loss()},
            "terms must have names that do not open with weight_, got 1",
        ),
    ],
)
def test_what_are_no_terms_is_refused(bad: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        UncertaintyLoss(bad)

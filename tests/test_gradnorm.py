"""GradNorm: pulls come to what they should, the model sees the plain weighted sum, state is safe."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from losses.gradnorm import GradNormLoss
from trainer.diagnostics import check_gradients


def terms() -> dict[str, nn.Module]:
    return {"l1": nn.L1Loss(), "mse": nn.MSELoss()}


def batch(seed: int = 0, *shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    predictions, targets = torch.randn(2, *(shape or (4, 5)), generator=generator)
    return predictions.requires_grad_(), 3 * targets


def pulls(loss: GradNormLoss, predictions: Tensor, targets: Tensor) -> Tensor:
    """‖wᵢ·∂Lᵢ/∂p‖, through autograd."""
    weights = 2 * torch.softmax(loss.s, 0).detach()
    slopes = [
        torch.autograd.grad(term(predictions, targets), predictions)[0] for term in terms().values()
    ]
    return weights * torch.stack([slope.norm() for slope in slopes])


def test_the_value_is_the_weighted_sum_and_so_is_the_gradient_into_the_predictions() -> None:
    loss = GradNormLoss(terms())
    loss.s.data = torch.tensor([0.7, -0.2])
    predictions, targets = batch()
    total, recorded = loss(predictions, targets)
    weights = 2 * torch.softmax(torch.tensor([0.7, -0.2]), 0)
    values = [term(predictions, targets) for term in terms().values()]
    plain = weights[0] * values[0] + weights[1] * values[1]
    torch.testing.assert_close(total, plain)
    assert list(recorded) == ["l1", "mse", "weight_l1", "weight_mse"]
    torch.testing.assert_close(recorded["weight_mse"], weights[1])
    slopes = [torch.autograd.grad(v, predictions, retain_graph=True)[0] for v in (total, plain)]
    torch.testing.assert_close(*slopes)


def test_the_gradient_into_s_is_that_of_the_imbalance() -> None:
    """At the first call every r is 1: Σ|Gᵢ − Ḡ| with Ḡ fixed."""
    loss = GradNormLoss(terms(), alpha=1.5)
    predictions, targets = batch()
    (slope,) = torch.autograd.grad(loss(predictions, targets)[0], loss.s)
    g = pulls(loss, predictions, targets)
    s = torch.zeros(2, requires_grad=True)
    imbalance = (2 * torch.softmax(s, 0) * g - g.mean()).abs().sum()
    torch.testing.assert_close(slope, torch.autograd.grad(imbalance, s)[0])


@pytest.mark.parametrize("alpha", [0.0, 1.5])
def test_training_it_brings_the_pulls_to_their_share(alpha: float) -> None:
    loss = GradNormLoss(terms(), alpha)
    loss(*batch(1))  # other initial values: the terms have fallen unlike each other
    predictions, targets = batch(2)
    optimizer = torch.optim.SGD(loss.parameters(), 0.02)
    for _ in range(600):
        optimizer.zero_grad()
        loss(predictions, targets)[0].backward()
        optimizer.step()
    with torch.no_grad():
        values = torch.stack([term(predictions, targets) for term in terms().values()])
    ratios = values / loss.initial
    wanted = (ratios / ratios.mean()) ** alpha
    g = pulls(loss, predictions, targets)
    torch.testing.assert_close(g / g.sum(), wanted / wanted.sum(), rtol=0.05, atol=0)


def test_the_first_finite_terms_of_training_are_kept() -> None:
    loss = GradNormLoss(terms())
    predictions, targets = batch()
    loss.eval()(predictions, targets)
    loss.train()
    with torch.no_grad():
        loss(predictions, targets)
    loss(predictions, targets * math.nan)
    assert (loss.initial == 0).all()
    loss(predictions, targets)
    first = loss.initial.clone()
    torch.testing.assert_close(
        first, torch.stack([term(predictions, targets) for term in terms().values()]).detach()
    )
    loss(*batch(1))
    assert torch.equal(loss.initial, first)
    assert torch.equal(loss.state_dict()["initial"], first)


def test_in_evaluation_it_is_the_weighted_sum_with_or_without_gradients() -> None:
    loss = GradNormLoss(terms())
    predictions, targets = batch()
    trained = loss(predictions, targets)[0]
    before = copy.deepcopy(loss.state_dict())
    assert loss.eval()(predictions, targets)[0] == trained
    with torch.no_grad():
        assert loss(predictions, targets)[0] == trained
    assert all(torch.equal(value, before[name]) for name, value in loss.state_dict().items())


@pytest.mark.parametrize("wrong", [0.0, 1e4])
def test_a_term_that_is_0_or_huge_leaves_everything_finite(wrong: float) -> None:
    predictions, _ = batch()
    targets = predictions.detach() + wrong
    for first in (True, False):
        loss = GradNormLoss(terms())
        loss(*((predictions, targets) if first else batch()))
        total, _ = loss(*batch() if first else (predictions, targets))
        total.backward()
        assert total.isfinite()
        assert loss.s.grad.isfinite().all()
        assert predictions.grad is None or predictions.grad.isfinite().all()


def test_stacked_members_are_each_their_own() -> None:
    members = [GradNormLoss(terms()) for _ in range(3)]
    parameters, buffers = torch.func.stack_module_state(members)
    predictions, targets = batch(0, 3, 4, 5)

    def one(p: Any, b: Any, x: Tensor, y: Tensor) -> Tensor:
        return torch.func.functional_call(members[0], (p, b), (x, y))[0]

    slopes, totals = torch.vmap(torch.func.grad_and_value(one))(
        parameters, buffers, predictions.detach(), targets
    )
    for k, member in enumerate([GradNormLoss(terms()) for _ in range(3)]):
        own, _ = member(predictions[k], targets[k])
        own.backward()
        torch.testing.assert_close(totals[k], own)
        torch.testing.assert_close(slopes["s"][k], member.s.grad)
        torch.testing.assert_close(buffers["initial"][k], member.initial)


@pytest.mark.parametrize("alpha", [-1, math.nan, None])
def test_a_bad_alpha_is_refused(alpha: Any) -> None:
    with pytest.raises(ValueError, match=f"^alpha must be a finite number >= 0, got {alpha}$"):
        GradNormLoss(terms(), alpha)


def test_a_check_of_gradients_leaves_its_own_out() -> None:
    torch.manual_seed(0)
    loss, batch = GradNormLoss(terms()), (torch.randn(4, 3), torch.randn(4, 2))
    check = check_gradients(nn.Linear(3, 2), loss, batch)
    assert check.passed
    assert check.notes == ("with a gradient of their own, not checked: loss.s",)

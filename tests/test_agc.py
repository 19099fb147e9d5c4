"""Adaptive gradient clipping: the published formula unit by unit, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from clips import bound, clip, copies, found, gradients, same
from torch import nn

from trainer.clipping import AGC, total_norm


def units(name: str, tensor: torch.Tensor) -> list[torch.Tensor]:
    """The units of the net's parameters, by hand."""
    if tensor.dim() < 2:
        return [tensor]
    return list(tensor.unbind(1 if name == "up.weight" else 0))


@pytest.mark.parametrize("skip_head", [True, False])
def test_it_is_the_published_formula_in_float64(skip_head: bool) -> None:
    mode, net, _ = bound(AGC(0.02, 1e-2, skip_head), torch.float64)
    gradients(net, 0.02)
    before = {name: p.grad.clone() for name, p in net.named_parameters()}
    clipped = mode(found(net), total_norm(found(net)))
    for name, p in net.named_parameters():
        pairs = zip(units(name, p), units(name, before[name]), units(name, p.grad), strict=True)
        for w, g, got in pairs:
            limit = 0.02 * max(w.norm().item(), 1e-2)
            head = skip_head and name in ("embedding.weight", "head.bias")
            expected = g if head or g.norm() <= limit else g * limit / g.norm()
            torch.testing.assert_close(got, expected, rtol=1e-13, atol=0)
    torch.testing.assert_close(clipped.norm, total_norm(found(net)), rtol=1e-12, atol=0)


def test_a_bias_that_starts_at_zero_learns() -> None:
    # Composer has no ε: a weight of norm 0 makes the coefficient 0, the gradient [1, 1, 1, 1] becomes
    # [0, 0, 0, 0], and it stays there.
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    nn.init.zeros_(net[0].bias)
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    mode = AGC()
    mode.bind(net, optimizer)
    for _ in range(50):
        for p in net.parameters():
            p.grad = torch.ones_like(p)
        clip(mode, found(net))
        optimizer.step()
    assert torch.linalg.vector_norm(net[0].bias).item() == pytest.approx(50 * 0.1 * 1e-5, rel=1e-4)


def test_units_within_their_bound_are_left_bit_for_bit_beside_those_beyond() -> None:
    mode, net, _ = bound(AGC())
    gradients(net, 1e-6)
    net.mix.weight.grad[2] *= 1e6
    before = copies(net.mix.weight.grad)
    clip(mode, found(net))
    assert [torch.equal(a, b) for a, b in zip(net.mix.weight.grad, before, strict=True)] == [
        *(True, True, False, True)
    ]


def test_gradients_that_come_and_go_meet_their_own_weights() -> None:
    after = []
    for fresh in (True, False):
        mode, net, _ = bound(AGC())
        for missing in ([] if fresh else ["zero.weight"]), ["up.weight"], ["mix.weight"]:
            gradients(net)
            for name in missing:
                net.get_parameter(name).grad = None
            if not fresh or missing == ["mix.weight"]:
                after.append(clip(mode, found(net)))
    assert same(after[0], after[-1])


def test_only_the_head_having_a_gradient_is_no_trouble() -> None:
    mode, net, _ = bound(AGC())
    gradients(net)
    for name, p in net.named_parameters():
        p.grad = p.grad if name == "head.bias" else None
    before = copies(found(net))
    assert same(clip(mode, found(net)), before)


def test_the_parameters_of_a_loss_are_units_as_well() -> None:
    net, weights = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1)), nn.Parameter(torch.full((4,), 2.0))
    mode = AGC()
    mode.bind(net, torch.optim.SGD([*net.parameters(), weights], 0.1))
    for p in (*net.parameters(), weights):
        p.grad = torch.ones_like(p)
    clip(mode, [p.grad for p in (*net.parameters(), weights)])
    assert weights.grad is not None
    assert weights.grad.norm().item() == pytest.approx(0.01 * 4)


def test_what_it_cannot_clip_is_named() -> None:
    net: Any = nn.Linear(2, 1)
    with pytest.raises(ValueError, match=r"nothing to clip .* use clip\.skip_head=false"):
        AGC().bind(net, torch.optim.SGD(net.parameters(), 0.1))
    with pytest.raises(ValueError, match=r"call bind\(model, optimizer\) first"):
        AGC()([torch.ones(1)], torch.tensor(1.0))


@pytest.mark.parametrize("bad", [{"factor": 0}, {"eps": 0}, {"eps": -1e-3}, {"factor": float("nan")}])
def test_an_argument_out_of_range_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(bad))} must be"):
        AGC(**bad)  # type: ignore[arg-type]

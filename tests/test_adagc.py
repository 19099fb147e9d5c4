"""AdaGC: the published formula tensor by tensor, and that no tensor is shut off for good."""

from __future__ import annotations

import math

import pytest
import torch
from clips import bound, copies, found, gradients
from torch import Tensor, nn

from trainer.clipping import AdaGC, total_norm


def pair(mode: AdaGC) -> tuple[nn.Parameter, nn.Parameter]:
    net = nn.ParameterList([torch.zeros(2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)])
    mode.bind(net, torch.optim.SGD(net.parameters(), 0.1))
    first, second = net
    return first, second


def step(mode: AdaGC, parameters: tuple[nn.Parameter, ...], *grads: float | None) -> list[float]:
    """Entries after a step with constant gradients; None where there is no gradient."""
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = None if grad is None else torch.full_like(parameter, grad)
    given = [p.grad for p in parameters if p.grad is not None]
    mode(given, total_norm(given))
    return [g[0].item() for g in given]


def published(rows: list[list[Tensor]], factor: float, beta: float, warmup: int) -> list[list[Tensor]]:
    """The formula in a plain loop; γ starts as the mean of the warm-up."""
    gamma = [0.0] * len(rows[0])
    outcome = []
    for t, row in enumerate(rows):
        whole = math.sqrt(sum(g.square().sum().item() for g in row))
        outcome.append([])
        for i, g in enumerate(row):
            own = g.norm().item()
            h = min(1.0, 1 / (whole + 1e-6) if whole > 1 else 1.0)
            h = h if t < warmup else min(1.0, factor * gamma[i] / own)
            share = 1 / (t + 1) if t < warmup else 1 - beta
            gamma[i] += share * (h * own - gamma[i])
            outcome[-1].append(h * g)
    return outcome


def test_it_is_the_published_formula_in_float64() -> None:
    mode, net, _ = bound(AdaGC(beta=0.9, warmup=5), torch.float64)
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(not name.startswith("silent"))
    scales = [0.1, 2.0, 0.05, 0.3, 0.1, 0.1, 5.0, 0.1, 0.2, 0.01, 0.4]
    rows = []
    for seed, scale in enumerate(scales):
        gradients(net, scale, seed)
        net.silent.weight.grad = net.silent.bias.grad = None
        rows.append(copies(found(net)))
    for row, expected in zip(rows, published(rows, 1.05, 0.9, 5), strict=True):
        for parameter, grad in zip((p for p in net.parameters() if p.requires_grad), row, strict=True):
            parameter.grad = grad
        norm = total_norm(found(net))
        clipped = mode(found(net), norm)
        torch.testing.assert_close(found(net), expected, rtol=2e-6, atol=0)
        torch.testing.assert_close(clipped.norm, total_norm(found(net)), rtol=1e-12, atol=0)


@pytest.mark.parametrize("odd", [0.0, 1e-20])
def test_one_gradient_of_zero_does_not_shut_a_tensor_off(odd: float) -> None:
    # The public code takes γ as the least norm of the warm-up, so that one zero makes it 0: over 400
    # later steps of Adam with an ordinary gradient the weight moved by 8e-6, and by 4.0 without it.
    for at in (0, 5):
        mode = AdaGC(warmup=10)
        parameters = pair(mode)
        for k in range(40):
            after = step(mode, parameters, odd if k == at else 0.1, 0.1)
        assert after == pytest.approx([0.1, 0.1], rel=0.15)


def test_a_tensor_that_speaks_up_late_has_a_warm_up_of_its_own() -> None:
    mode = AdaGC(warmup=10)
    parameters = pair(mode)
    for _ in range(30):
        step(mode, parameters, 0.1, 0.0)
    for k in range(10):
        assert step(mode, parameters, 0.1, 0.2 + k / 100) == pytest.approx([0.1, 0.2 + k / 100])
    assert step(mode, parameters, 0.1, 5.0)[1] < 0.3


def test_averages_go_by_place_when_a_gradient_is_missing() -> None:
    mode = AdaGC(warmup=3)
    parameters = pair(mode)
    for _ in range(4):
        step(mode, parameters, 0.1, 0.4)
    step(mode, parameters, None, 0.4)
    assert step(mode, parameters, 9.0, 9.0) == pytest.approx([0.105, 0.42], rel=1e-6)


def test_a_spike_in_one_tensor_does_not_shorten_another() -> None:
    mode = AdaGC(warmup=3)
    parameters = pair(mode)
    for _ in range(5):
        step(mode, parameters, 0.1, 0.1)
    assert step(mode, parameters, 1e4, 0.1) == [pytest.approx(0.105), 0.1]


def test_gradients_of_other_parameters_are_refused() -> None:
    mode = AdaGC()
    with pytest.raises(ValueError, match=r"bound to the parameters of its 1 gradients.* call bind"):
        mode([torch.ones(2)], torch.tensor(1.0))
    pair(mode)
    with pytest.raises(ValueError, match="must be of 2 tensors, got 0"):
        mode.load_state_dict(AdaGC().state_dict())


@pytest.mark.parametrize("bad", [{"factor": 1.0}, {"beta": 1}, {"warmup": 0}, {"eps": 0}])
def test_an_argument_out_of_range_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(bad))} must be"):
        AdaGC(**bad)  # type: ignore[arg-type]

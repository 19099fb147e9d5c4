"""Activations: their formulas, and the dropout that keeps what each is made to keep."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from models.activations import ACTIVATIONS, dropout_after
from models.mlp import MLP

L, A = 1.0507009873554805, 1.6732632423543772  # λ and α of arXiv 1706.02515
FORMULAS: dict[str, Callable[[float], float]] = {
    "relu": lambda z: max(z, 0.0),
    "leaky_relu": lambda z: max(z, 0.01 * z),
    "selu": lambda z: L * z if z > 0 else L * A * math.expm1(z),
    "gelu": lambda z: z * (1 + math.erf(z / math.sqrt(2))) / 2,
    "silu": lambda z: z / (1 + math.exp(-z)),
    "tanh": math.tanh,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_each_is_its_formula(name: str) -> None:
    z = torch.linspace(-4, 4, 41, dtype=torch.float64)
    expected = torch.tensor([FORMULAS[name](value) for value in z.tolist()], dtype=torch.float64)
    torch.testing.assert_close(ACTIVATIONS[name]()(z), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_no_dropout_is_no_module(name: str) -> None:
    assert dropout_after(name, 0.0) == []
    assert len(dropout_after(name, 0.1)) == 1


def moments(values: Tensor) -> tuple[float, float]:
    return values.mean().item(), values.var().item()


def test_dropout_after_selu_keeps_mean_and_variance_and_elsewhere_only_the_mean() -> None:
    torch.manual_seed(0)
    z = torch.randn(400_000, dtype=torch.float64)
    x = nn.SELU()(z)
    assert moments(dropout_after("selu", 0.2)[0](x)) == pytest.approx((0.0, 1.0), abs=0.01)
    x = nn.ReLU()(z)
    mean, variance = moments(dropout_after("relu", 0.2)[0](x))
    assert mean == pytest.approx(x.mean().item(), abs=0.01)
    assert variance > 1.25 * x.var().item()  # (v + p·m²)/(1 − p)


@pytest.mark.parametrize("dropout", [0.0, 0.05])
def test_a_selu_network_keeps_mean_and_variance_through_twenty_layers(dropout: float) -> None:
    """The fixed point of arXiv 1706.02515, from an input that is off it."""
    torch.manual_seed(0)
    model = MLP((512,), (1,), [512] * 20, activation="selu", dropout=dropout).double()
    hidden = model.layers[:-1](1.5 * torch.randn(256, 512, dtype=torch.float64) + 0.5)
    assert moments(hidden) == pytest.approx((0.0, 1.0), abs=0.15)


def test_torch_s_own_init_loses_the_signal_where_selu_s_keeps_it() -> None:
    torch.manual_seed(0)
    model = MLP((512,), (1,), [512] * 20).double()  # relu, U(−1/√fan_in, 1/√fan_in)
    hidden = model.layers[:-1](torch.randn(64, 512, dtype=torch.float64))
    assert hidden.square().mean() < 1e-3

"""The multilayer perceptron: shapes, what it computes, and its refusals."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from models.mlp import MLP


@pytest.mark.parametrize(
    ("input_shape", "output_shape"),
    [((10,), (1,)), ((1, 8, 8), (1, 8, 8)), ((3, 4), (2, 5, 6)), ((), ()), ([7], [10])],
)
def test_maps_any_input_shape_to_any_output_shape(input_shape, output_shape):
    output = MLP(input_shape, output_shape)(torch.randn(5, *input_shape))
    assert output.shape == (5, *output_shape)


def test_default_has_two_hidden_layers_of_fifty():
    shapes = [tuple(p.shape) for p in MLP((10,), (1,)).parameters()]
    assert shapes == [(50, 10), (50,), (50, 50), (50,), (1, 50), (1,)]


def test_computes_the_formula_in_its_docstring():
    torch.manual_seed(0)
    model = MLP((2, 3), (4,), hidden=(5,)).double()
    w1, b1, w2, b2 = model.parameters()
    x = torch.randn(7, 2, 3, dtype=torch.float64)
    expected = (x.flatten(1) @ w1.T + b1).clamp_min(0) @ w2.T + b2
    torch.testing.assert_close(model(x), expected)


def test_no_hidden_layers_make_a_linear_model():
    torch.manual_seed(0)
    model = MLP((3,), (2,), hidden=[])
    x, y = torch.randn(2, 4, 3)
    torch.testing.assert_close(model(x) + model(y), 2 * model((x + y) / 2))
    assert sum(isinstance(layer, nn.Linear) for layer in model.modules()) == 1


def test_samples_of_a_batch_do_not_influence_each_other():
    torch.manual_seed(0)
    model, x = MLP((3,), (2,)), torch.randn(6, 3)
    torch.testing.assert_close(model(x)[2:3], model(x[2:3]))


def test_every_parameter_gets_a_gradient():
    torch.manual_seed(0)
    model = MLP((1, 8, 8), (1, 8, 8))
    model(torch.randn(32, 1, 8, 8)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


@pytest.mark.parametrize("hidden", [50, "50", "", (50, 0), (50, -1), (50.0,), (True,), ("50",), None])
def test_refuses_bad_hidden_widths_in_one_line(hidden):
    line = f"hidden must be a list of whole numbers >= 1, got {hidden!r}; the default is [50, 50]"
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        MLP((10,), (1,), hidden=hidden)


@pytest.mark.parametrize("name", ["input_shape", "output_shape"])
@pytest.mark.parametrize("shape", [10, (0,), (1.0,), "10", None])
def test_refuses_a_bad_shape_by_name(name, shape):
    shapes = {"input_shape": (10,), "output_shape": (1,), name: shape}
    with pytest.raises(ValueError, match=rf"^{name} must be a list of whole numbers >= 1, got "):
        MLP(**shapes)


def test_the_default_draws_and_computes_what_plain_layers_do_to_the_bit():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(10, 50), nn.ReLU(), nn.Linear(50, 50), nn.ReLU(), nn.Linear(50, 3))
    torch.manual_seed(0)
    model = MLP((10,), (3,))
    assert [f"layers.{name}" for name in plain.state_dict()] == list(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), model.parameters(), strict=True))
    x = torch.randn(4, 10)
    assert torch.equal(plain(x), model(x))


def test_a_hidden_layer_is_normalized_then_activated_then_dropped():
    model = MLP((4,), (1,), hidden=[6], norm="layer", dropout=0.5, activation="tanh")
    kinds = [nn.Linear, nn.LayerNorm, nn.Tanh, nn.Dropout, nn.Linear]
    assert [type(layer) for layer in model.layers] == kinds
    assert model.layers[0].bias is None


def test_selu_brings_its_init_and_alpha_dropout():
    torch.manual_seed(0)
    model = MLP((400,), (1,), hidden=[400], activation="selu", dropout=0.1)
    weight, bias = model.layers[0].weight, model.layers[0].bias
    assert weight.std().item() == pytest.approx(1 / 20, rel=0.01)  # 1/√fan_in; torch's is 0.58 of it
    assert not bias.any()
    assert isinstance(model.layers[2], nn.AlphaDropout)


@pytest.mark.parametrize(
    ("name", "bad"), [("activation", "rleu"), ("norm", "rms"), ("dropout", 1), ("dropout", -0.1)]
)
def test_refuses_a_bad_knob_by_name(name, bad):
    with pytest.raises(ValueError, match=rf"^{name} must be .*, got {bad!r}"):
        MLP((10,), (1,), hidden=[], **{name: bad})

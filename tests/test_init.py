"""Initializations: each weight's distribution against its formula, and what each leaves alone."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from commands import composed
from torch import Tensor, nn

from models import init
from models.activations import ACTIVATIONS
from models.cnn import CNN
from models.mlp import MLP
from models.rnn import RNN
from models.transformer import Transformer
from models.unet import UNet

GAINS = {"relu": math.sqrt(2), "leaky_relu": math.sqrt(2 / (1 + 0.01**2)), "selu": 1.0, "tanh": 1.5925}
ALL = [init.xavier, init.kaiming, init.orthogonal, init.normal]
EMBEDDED = re.compile("embedding|positions")
SCALED = [init.xavier, init.kaiming, init.orthogonal]


def model(kind: type[nn.Module], **settings: Any) -> Any:
    torch.manual_seed(0)
    image, text = ((1, 8, 8), (1, 8, 8)), ((12,), (20, 12))
    built: nn.Module = kind(*(text if kind in (RNN, Transformer) else image), **settings)
    return built.double()


def matrices(built: nn.Module) -> list[Tensor]:
    return [
        p.detach() for name, p in built.named_parameters() if p.dim() > 1 and not EMBEDDED.match(name)
    ]


@pytest.mark.parametrize(("name", "expected"), GAINS.items())
def test_gain_is_that_of_the_model_s_activation(name: str, expected: float) -> None:
    assert init.gain(model(MLP, activation=name)) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_gain_keeps_the_second_moment(name: str) -> None:
    built = model(MLP, activation=name)
    z = torch.randn(1_000_000, dtype=torch.float64)
    moment = (init.gain(built) * ACTIVATIONS[name]()(z)).square().mean()
    assert moment.item() == pytest.approx(1.0, abs=0.01)


def test_gain_of_a_model_without_activations_is_one() -> None:
    assert init.gain(model(RNN)) == 1.0


def test_xavier_is_uniform_with_the_variance_of_its_formula() -> None:
    built = model(MLP, hidden=[300, 200], activation="tanh")
    init.xavier(built)
    weight = built.layers[2].weight.detach()
    bound = init.gain(built) * math.sqrt(6 / (300 + 200))
    assert 0.999 * bound < weight.abs().max() <= bound
    assert weight.var().item() == pytest.approx(bound**2 / 3, rel=0.02)
    assert abs(weight.mean().item()) < 4 * bound / math.sqrt(3 * weight.numel())


def test_kaiming_is_normal_with_the_variance_of_its_formula() -> None:
    built = model(UNet, channels=32, depth=1)
    init.kaiming(built)
    weight = built.encoder[1][3].weight.detach()  # (64, 64, 3, 3)
    assert weight.var().item() == pytest.approx(2 / (64 * 9), rel=0.02)
    kurtosis = (weight / weight.std()).pow(4).mean().item()
    assert kurtosis == pytest.approx(3.0, abs=0.15)  # 1.8 if it were uniform


def test_kaiming_counts_what_a_transposed_convolution_takes_in() -> None:
    layer = nn.ConvTranspose2d(64, 16, 3)
    init.kaiming(layer)
    assert layer.weight.var().item() == pytest.approx(1 / (64 * 9), rel=0.1)


@pytest.mark.parametrize("kind", [MLP, CNN, UNet, RNN, Transformer])
def test_orthogonal_is_orthogonal_by_rows_or_by_columns(kind: type[nn.Module]) -> None:
    built = model(kind)
    init.orthogonal(built)
    factor = init.gain(built)
    for weight in matrices(built):
        gates = weight.split(128) if kind is RNN and weight.shape[0] > 128 else [weight]
        for gate in (piece.flatten(1) for piece in gates):
            q = gate / factor if gate.shape[0] <= gate.shape[1] else gate.T / factor
            torch.testing.assert_close(q @ q.T, torch.eye(len(q), dtype=q.dtype), atol=1e-9, rtol=0)


def test_normal_has_one_deviation_for_every_weight_and_embedding() -> None:
    built = model(Transformer)
    init.normal(built, std=0.3)
    for parameter in (p for p in built.parameters() if p.dim() > 1):
        tolerance = 5 / math.sqrt(2 * parameter.numel())
        assert parameter.std().item() == pytest.approx(0.3, rel=tolerance)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("function", SCALED)
def test_hidden_to_hidden_matrices_are_orthogonal_for_each_gate(
    cell: str, function: Callable[..., None]
) -> None:
    built = model(RNN, cell=cell, width=16)
    function(built, scale=0.5)
    for gate in built.layers[0].weight_hh_l0.detach().split(16):
        torch.testing.assert_close(4 * gate @ gate.T, torch.eye(16, dtype=gate.dtype))


@pytest.mark.parametrize("function", ALL)
def test_biases_are_zero_but_for_the_gate_that_keeps_the_state(function: Callable[..., None]) -> None:
    built = model(RNN, width=16, forget_bias=1.5)
    function(built)
    expected = torch.zeros(64, dtype=torch.float64)
    expected[16:32] = 1.5
    torch.testing.assert_close(built.layers[0].bias_ih_l0.detach(), expected)
    assert built.layers[0].bias_hh_l0.abs().max() == 0
    assert built.head.bias.abs().max() == 0


@pytest.mark.parametrize("function", ALL)
@pytest.mark.parametrize("kind", [UNet, Transformer])
def test_normalizations_stay_and_embeddings_only_follow_normal(
    function: Callable[..., None], kind: type[nn.Module]
) -> None:
    built = model(kind)
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(7.0)
    function(built)
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            assert torch.equal(module.weight, torch.full_like(module.weight, 8.0))
            assert torch.equal(module.bias, torch.full_like(module.bias, 7.0))
        elif isinstance(module, nn.Embedding):
            assert (module.weight.mean() > 6).item() == (function is not init.normal)
        elif isinstance(module, nn.Linear | nn.Conv2d):
            assert module.weight.mean().abs() < 1


def test_default_leaves_every_bit() -> None:
    built = model(Transformer, activation="selu")
    before = copy.deepcopy(built.state_dict())
    generator = torch.get_rng_state()
    init.default(built)
    assert all(torch.equal(before[name], value) for name, value in built.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)


@pytest.mark.parametrize("function", ALL)
def test_the_seed_decides(function: Callable[..., None]) -> None:
    built, again = model(CNN), model(CNN)
    for each in (built, again):
        torch.manual_seed(3)
        function(each)
    assert all(torch.equal(a, b) for a, b in zip(matrices(built), matrices(again), strict=True))
    function(again)
    assert not any(torch.equal(a, b) for a, b in zip(matrices(built), matrices(again), strict=True))


def test_an_explicit_init_takes_the_place_of_selu_s_own() -> None:
    built = model(MLP, hidden=[400, 400], activation="selu")
    assert built.layers[2].weight.std().item() == pytest.approx(1 / 20, rel=0.01)
    init.normal(built, std=0.3)
    assert built.layers[2].weight.std().item() == pytest.approx(0.3, rel=0.01)


@pytest.mark.parametrize("function", SCALED)
def test_scale_is_a_factor_on_every_weight(function: Callable[..., None]) -> None:
    built, scaled = model(Transformer), model(Transformer)
    for each, scale in ((built, 1.0), (scaled, 3.0)):
        torch.manual_seed(0)
        function(each, scale=scale)
    for a, b in zip(matrices(built), matrices(scaled), strict=True):
        torch.testing.assert_close(3 * a, b)


def length_map_slope(name: str) -> float:
    """d ln E[φ(√q·z)²] / d ln q at q = 1: above 1 a layer pushes the scale away from q = 1."""
    z = torch.linspace(-10, 10, 20001, dtype=torch.float64)
    density = torch.exp(-z.square() / 2)
    up, down = (
        torch.trapezoid(ACTIVATIONS[name]()(z * math.exp(h / 2)).square() * density, z).log().item()
        for h in (1e-3, -1e-3)
    )
    return (up - down) / 2e-3


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "selu", "tanh"])
def test_kaiming_keeps_the_signal_through_twenty_layers(name: str) -> None:
    assert length_map_slope(name) < 1 + 1e-6
    built = model(MLP, hidden=[512] * 20, activation=name)
    init.kaiming(built)
    last = built.layers[:-2](torch.randn(128, 64, dtype=torch.float64))
    assert 0.5 < last.square().mean().item() < 3  # relu: 2, its square that was handed in


@pytest.mark.parametrize("name", ["gelu", "silu"])
def test_gelu_and_silu_have_no_scale_that_deep_networks_return_to(name: str) -> None:
    """Why the docstring of `gain` asks for a normalization."""
    assert length_map_slope(name) > 1.05


def test_the_command_line_draws_after_the_model_is_built_and_from_the_seed() -> None:
    def weights(arguments: str) -> list[Tensor]:
        (job,) = composed(f"python train.py {arguments}")
        trainer = job.prepare().trainer
        # Drawn before the optimizer: what it trains is what the model computes with.
        assert set(map(id, trainer.model.parameters())) == set(map(id, trainer.parameters))
        return [p.detach().clone() for p in trainer.model.parameters()]

    torch.manual_seed(0)
    plain = list(UNet((1, 8, 8), (1, 8, 8)).parameters())
    assert all(torch.equal(a, b) for a, b in zip(plain, weights("seed=0"), strict=True))
    drawn = weights("init=normal init.std=0.5")
    assert drawn[3].std().item() == pytest.approx(0.5, rel=0.05)  # the second convolution
    again, other = weights("init=normal init.std=0.5"), weights("init=normal init.std=0.5 seed=1")
    assert all(torch.equal(a, b) for a, b in zip(drawn, again, strict=True))
    assert not torch.equal(drawn[3], other[3])


def test_zero_residual_makes_the_blocks_the_identity() -> None:
    built = model(Transformer, depth=3)
    before = copy.deepcopy(built.state_dict())
    init.zero_residual(built)
    x = torch.randn(2, 12, 64, dtype=torch.float64)
    for block in built.blocks:
        assert torch.equal(block(x), x)
    changed = {
        name for name, value in built.state_dict().items() if not torch.equal(before[name], value)
    }
    assert changed == {f"blocks.{i}.{name}.weight" for i in range(3) for name in ("out", "fall")}


@pytest.mark.parametrize("kind", [MLP, CNN, UNet, RNN])
def test_zero_residual_refuses_a_model_without_branches(kind: type[nn.Module]) -> None:
    built = model(kind)
    with pytest.raises(ValueError, match=rf"^model must have .*, got {kind.__name__}; use"):
        init.zero_residual(built)


@pytest.mark.parametrize("bad", [0, -1.0, math.nan, math.inf, True, "1"])
def test_a_scale_or_deviation_that_is_none_is_refused_by_name(bad: Any) -> None:
    for function in SCALED:
        with pytest.raises(ValueError, match=r"^scale must be a finite number > 0, got "):
            function(model(MLP), scale=bad)
    with pytest.raises(ValueError, match=r"^std must be a finite number > 0, got "):
        init.normal(model(MLP), std=bad)

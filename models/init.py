"""Initializations: functions that draw the weights of a built model anew, in place.

Drawn are the weights of linear and convolutional layers and of LSTM and GRU, where each gate counts as a
matrix of its own. Their biases become 0, but for the bias of the gate that keeps an LSTM's or GRU's
state, which stays as the model set it. Normalizations stay as they are, and so do embeddings, tied to
the output or not, except under `normal`: they are looked up, not multiplied with, and have no fan.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from models import checks
from models.activations import ACTIVATIONS

Draw = Callable[[Tensor], object]


def default(model: nn.Module) -> None:
    """Leaves the model as its constructor drew it: torch's own, or what the model brings (selu,
    transformer)."""


def xavier(model: nn.Module, scale: float = 1.0) -> None:
    """W ~ U(−a, a) with a = g·√(6/(fan_in + fan_out)), of variance 2g²/(fan_in + fan_out).

    Keeps a compromise of the variance of activations and of gradients (Glorot and Bengio 2010). g is
    scale times `gain`. Hidden-to-hidden matrices are orthogonal, times scale.

    Args:
        model: drawn anew, in place.
        scale: factor on all weights; > 0.

    Raises:
        ValueError: for a scale out of range.
    """
    factor = _checked(scale) * gain(model)
    _draw(model, lambda weight: nn.init.xavier_uniform_(weight, factor), _orthogonal(scale))


def kaiming(model: nn.Module, scale: float = 1.0) -> None:
    """W ~ N(0, g²/fan_in), which keeps the second moment of the activations (arXiv 1502.01852).

    g is scale times `gain`: √2 for relu, as in the paper; 1 for selu, which makes it the normal
    distribution of LeCun that a self-normalizing network asks for (arXiv 1706.02515).
    Hidden-to-hidden matrices are orthogonal, times scale.

    Args:
        model: drawn anew, in place.
        scale: factor on all weights; > 0.

    Raises:
        ValueError: for a scale out of range.
    """
    factor = _checked(scale) * gain(model)

    def draw(weight: Tensor) -> None:
        weight.normal_(0.0, factor / math.sqrt(weight[0].numel()))

    _draw(model, draw, _orthogonal(scale))


def orthogonal(model: nn.Module, scale: float = 1.0) -> None:
    """W = g·Q with QQᵀ = I, or QᵀQ = I where W is taller than wide (arXiv 1312.6120).

    g is scale times `gain`. A convolution's kernel is a matrix with a row for each output channel.

    Args:
        model: drawn anew, in place.
        scale: factor on all weights; > 0.

    Raises:
        ValueError: for a scale out of range.
    """
    _draw(model, _orthogonal(_checked(scale) * gain(model)), _orthogonal(scale))


def normal(model: nn.Module, std: float = 0.02) -> None:
    """W ~ N(0, std²) for every weight, embeddings too.

    Args:
        model: drawn anew, in place.
        std: standard deviation; > 0.

    Raises:
        ValueError: for a deviation out of range.
    """
    checks.number("std", std, above=0)

    def draw(weight: Tensor) -> None:
        weight.normal_(0.0, std)

    _draw(model, draw, draw)
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, 0.0, std)


def zero_residual(model: nn.Module) -> None:
    """Zeroes the last layer of every residual branch; all else stays as the model drew it.

    x + f(x) is then x: the deepest model starts as its embedding and head alone (as in arXiv 1901.09321
    and 1706.02677). A model says which layers these are: a module in it has ``residual_ends()``, which
    returns them.

    Args:
        model: changed in place.

    Raises:
        ValueError: if it has no residual branch.
    """
    ends = [
        end
        for module in model.modules()
        if callable(found := getattr(module, "residual_ends", None))
        for end in found()
    ]
    if not ends:
        raise ValueError(
            f"model must have residual branches, as model=transformer has, got {type(model).__name__}; "
            "use another init"
        )
    for parameter in (parameter for end in ends for parameter in end.parameters()):
        nn.init.zeros_(parameter)


def gain(model: nn.Module) -> float:
    """g = 1/√E[φ(z)²] for z ~ N(0, 1), φ the model's first activation; 1 where it has none.

    With weights N(0, g²/fan_in) a layer whose sums z have a second moment of 1 hands sums of the same on
    to the next. g is √2 for relu, √(2/(1 + a²)) for leaky relu, 1 for selu, 1.53 for gelu, 1.68 for silu
    and 1.59 for tanh; `torch.nn.init.calculate_gain` has rules of thumb, 5/3 for tanh and 3/4 for selu,
    and none for gelu and silu. Those two push away whatever is not quite 1: deep networks of them
    want a normalization, whatever the gain.

    Example:
        >>> from torch import nn
        >>> round(gain(nn.Sequential(nn.Linear(2, 3), nn.ReLU())) ** 2, 6)
        2.0
    """
    kinds = tuple(ACTIVATIONS.values())
    activation = next((module for module in model.modules() if isinstance(module, kinds)), None)
    if activation is None:
        return 1.0
    z = torch.linspace(-10.0, 10.0, 20001, dtype=torch.float64)  # 0, where most have a kink, is one
    density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi)
    return float(torch.trapezoid(activation(z.clone()).square() * density, z).rsqrt())


def _checked(scale: float) -> float:
    return checks.number("scale", scale, above=0, remedy="1 is the published formula")


def _orthogonal(factor: float) -> Draw:
    return lambda weight: nn.init.orthogonal_(weight, factor)


@torch.no_grad()
def _draw(model: nn.Module, draw: Draw, recurrent: Draw) -> None:
    for module in model.modules():
        if isinstance(module, nn.RNNBase):
            _draw_gates(module, draw, recurrent)
        elif isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
            # A transposed convolution holds its kernel the other way round.
            turned = getattr(module, "transposed", False)
            draw(module.weight.transpose(0, 1) if turned else module.weight)
            if module.bias is not None:
                module.bias.zero_()


def _draw_gates(module: nn.RNNBase, draw: Draw, recurrent: Draw) -> None:
    for name, parameter in module.named_parameters(recurse=False):
        for index, gate in enumerate(parameter.split(module.hidden_size)):
            if name.startswith("weight"):
                (recurrent if name.startswith("weight_hh") else draw)(gate)
            elif index != 1:  # 1 is LSTM's forget gate and GRU's update gate
                gate.zero_()

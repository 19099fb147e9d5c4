"""Activations by name, and the dropout that goes with each."""

from __future__ import annotations

from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,  # slope 0.01 below 0
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


def dropout_after(activation: str, dropout: float) -> list[nn.Module]:
    """The dropout that directly follows an activation; none of it, and not a module, where it is 0.

    After selu it is alpha dropout (arXiv 1706.02515, section 3), which sets to selu's lower limit, not
    to 0, and so keeps the mean 0 and the variance 1 that a self-normalizing network lives on.

    Args:
        activation: a name in `ACTIVATIONS`.
        dropout: probability of an entry to be dropped, in [0, 1).
    """
    kind = nn.AlphaDropout if activation == "selu" else nn.Dropout
    return [kind(dropout)] if dropout else []

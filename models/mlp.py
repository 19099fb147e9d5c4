"""A multilayer perceptron between any two shapes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import Tensor, nn

from models import checks


class MLP(nn.Module):
    """Linear layers with ReLU between them: (B, *input_shape) to (B, *output_shape).

    h_0 = flatten(x), h_i = max(0, W_i h_{i-1} + b_i), the output is W h_n + b, reshaped.

    Args:
        input_shape: shape of one input, without the batch axis; () for a number.
        output_shape: shape of one output, without the batch axis; () for a number.
        hidden: width of each hidden layer; [] for a linear model.

    Raises:
        ValueError: if one of the three is not a list of whole numbers >= 1.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        output_shape: Sequence[int],
        hidden: Sequence[int] = (50, 50),
    ) -> None:
        super().__init__()
        self.inputs = prod(checks.sizes("input_shape", input_shape, "it is that of one sample"))
        self.output_shape = checks.sizes("output_shape", output_shape, "it is that of one sample")
        widths = checks.sizes("hidden", hidden, "the default is [50, 50]")
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise([self.inputs, *widths, prod(self.output_shape)]):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        """(B, *input_shape) to (B, *output_shape)."""
        flat: Tensor = self.layers(x.reshape(len(x), self.inputs))
        return flat.reshape(len(x), *self.output_shape)

"""A multilayer perceptron between any two shapes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import Tensor, nn

from models import checks
from models.activations import ACTIVATIONS, dropout_after
from models.init import kaiming
from models.norms import VECTOR, norm_layers


class MLP(nn.Module):
    """Linear layers with an activation φ between them: (B, *input_shape) to (B, *output_shape).

    h_0 = flatten(x), h_i = dropout(φ(norm(W_i h_{i-1} + b_i))), the output is W h_n + b, reshaped. With
    a normalization there is no b_i. With selu the weights are drawn from N(0, 1/fan_in), biases 0, and
    dropout is alpha dropout (arXiv 1706.02515).

    Args:
        input_shape: shape of one input, without the batch axis; () for a number.
        output_shape: shape of one output, without the batch axis; () for a number.
        hidden: width of each hidden layer; [] for a linear model.
        activation: relu, leaky_relu, selu, gelu, silu or tanh.
        norm: none, batch or layer.
        dropout: probability of an activation to be dropped, in [0, 1).

    Raises:
        ValueError: if one of the first three is not a list of whole numbers >= 1, or for a name or a
            probability that is none.
    """

    leading_axes = True  # `forward` takes further axes in front of the batch, if its layers do

    def __init__(
        self,
        input_shape: Sequence[int],
        output_shape: Sequence[int],
        hidden: Sequence[int] = (50, 50),
        activation: str = "relu",
        norm: str = "none",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.inputs = prod(checks.sizes("input_shape", input_shape, "it is that of one sample"))
        self.axes = len(input_shape)
        self.output_shape = checks.sizes("output_shape", output_shape, "it is that of one sample")
        widths = checks.sizes("hidden", hidden, "the default is [50, 50]")
        checks.choice("activation", activation, ACTIVATIONS)
        checks.choice("norm", norm, ("none", *VECTOR))
        checks.share("dropout", dropout, "0 is none")
        layers: list[nn.Module] = []
        for fan_in, fan_out in pairwise([self.inputs, *widths]):
            layers.append(nn.Linear(fan_in, fan_out, bias=norm == "none"))
            layers += [*norm_layers(VECTOR, norm, fan_out), ACTIVATIONS[activation]()]
            layers += dropout_after(activation, dropout)
        layers.append(nn.Linear([self.inputs, *widths][-1], prod(self.output_shape)))
        self.layers = nn.Sequential(*layers)
        if activation == "selu":
            kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, *input_shape) to (B, *output_shape)."""
        batch = x.shape[: x.dim() - self.axes]
        flat: Tensor = self.layers(x.reshape(*batch, self.inputs))
        return flat.reshape(*batch, *self.output_shape)

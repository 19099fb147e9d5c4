"""A convolutional network for images of any size."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import Tensor, nn

from models import checks
from models.activations import ACTIVATIONS, dropout_after
from models.init import kaiming
from models.norms import IMAGE, norm_layers


class CNN(nn.Module):
    """Blocks of convolution, normalization, activation and pooling: (B, C, H, W) to (B, *output_shape).

    Block i of 1 … depth is a 3x3 convolution to channels · 2^(i-1), the normalization, the activation,
    dropout, and the maximum over 2x2 pixels, which halves H and W, rounding up. The mean over what is
    left of the image (arXiv 1312.4400) and a linear layer end it, so that it takes any H and W. With
    selu the weights are drawn from N(0, 1/fan_in) and dropout is alpha dropout (arXiv 1706.02515).

    Args:
        input_shape: (C, H, W) of one input.
        output_shape: shape of one output, (K,) for the logits of K classes.
        channels: of the first block; doubled from block to block.
        depth: blocks, >= 1.
        activation: relu, leaky_relu, selu, gelu, silu or tanh.
        norm: batch, group or none.
        dropout: probability of an activation to be dropped, in [0, 1).

    Raises:
        ValueError: for an input that is no image, or a value out of range.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        output_shape: Sequence[int],
        channels: int = 16,
        depth: int = 3,
        activation: str = "relu",
        norm: str = "batch",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        checks.image("input_shape", input_shape)
        self.output_shape = checks.sizes("output_shape", output_shape, "it is that of one sample")
        checks.whole("channels", channels, 1, "the default is 16")
        checks.whole("depth", depth, 1, "the default is 3")
        checks.choice("activation", activation, ACTIVATIONS)
        checks.choice("norm", norm, ("none", *IMAGE))
        checks.share("dropout", dropout, "0 is none")
        layers: list[nn.Module] = []
        widths = [input_shape[0], *(channels * 2**level for level in range(depth))]
        for source, width in pairwise(widths):
            layers.append(nn.Conv2d(source, width, kernel_size=3, padding=1, bias=norm == "none"))
            layers += [*norm_layers(IMAGE, norm, width), ACTIVATIONS[activation]()]
            layers += [*dropout_after(activation, dropout), nn.MaxPool2d(2, ceil_mode=True)]
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], prod(self.output_shape))
        if activation == "selu":
            kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, *output_shape), for any H and W."""
        flat: Tensor = self.head(self.features(x).mean((2, 3)))
        return flat.reshape(len(x), *self.output_shape)

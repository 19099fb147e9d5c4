"""A small U-Net for images."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import gcd
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from models import checks
from models.activations import ACTIVATIONS, dropout_after
from models.init import kaiming
from models.norms import IMAGE, norm_layers


class UNet(nn.Module):
    """Encoder and decoder with skip connections (arXiv 1505.04597): (B, C, H, W) to (B, K, H, W).

    Level i of 0 … depth has channels · 2^i channels and images of (H / 2^i, W / 2^i). A block is
    twice a 3x3 convolution, normalization and activation. Average pooling leads down; nearest-neighbour
    upsampling and concatenation with the encoder's features of that level lead up; a 1x1 convolution
    ends it. Dropout is at the end of the way down, as in the paper. With selu the weights are drawn
    from N(0, 1/fan_in) and dropout is alpha dropout (arXiv 1706.02515).

    Args:
        input_shape: (C, H, W) of one input.
        output_shape: (K, H, W) of one output.
        channels: at full resolution; doubled at every halving of the image.
        depth: number of halvings, 0 for none; H and W must be divisible by 2^depth.
        activation: relu, leaky_relu, selu, gelu, silu or tanh.
        norm: batch, group or none.
        dropout: probability of an entry at the lowest level to be dropped, in [0, 1).

    Raises:
        ValueError: for shapes that are not of this kind, or a value out of range.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        output_shape: Sequence[int],
        channels: int = 16,
        depth: int = 2,
        activation: str = "relu",
        norm: str = "batch",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        _check_shapes(input_shape, output_shape)
        checks.whole("channels", channels, 1, "the default is 16")
        checks.whole("depth", depth, 0, "the default is 2")
        _check_divisible(input_shape, depth)
        checks.choice("activation", activation, ACTIVATIONS)
        checks.choice("norm", norm, ("none", *IMAGE))
        checks.share("dropout", dropout, "0 is none")
        widths = [channels * 2**level for level in range(depth + 1)]
        down = pairwise([input_shape[0], *widths])
        up = pairwise(reversed(widths))
        kinds = (activation, norm)
        encoder = [_block(above, here, *kinds) for above, here in down]
        encoder[-1].extend(dropout_after(activation, dropout))
        self.encoder = nn.ModuleList(encoder)
        self.decoder = nn.ModuleList(_block(here + below, here, *kinds) for below, here in up)
        self.head = nn.Conv2d(channels, output_shape[0], kernel_size=1)
        if activation == "selu":
            kaiming(self)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, K, H, W)."""
        # Both resamplings have a deterministic backward pass on CUDA; bilinear upsampling has none.
        levels: list[Tensor] = []
        for block in self.encoder:
            levels.append(block(avg_pool2d(levels[-1], 2) if levels else x))
        out = levels.pop()
        for block in self.decoder:
            out = block(torch.cat([levels.pop(), interpolate(out, scale_factor=2.0)], dim=1))
        image: Tensor = self.head(out)
        return image


def _block(fan_in: int, fan_out: int, activation: str, norm: str) -> nn.Sequential:
    layers: list[nn.Module] = []
    for source in (fan_in, fan_out):
        bias = norm == "none"
        layers.append(nn.Conv2d(source, fan_out, kernel_size=3, padding=1, bias=bias))
        layers += [*norm_layers(IMAGE, norm, fan_out), ACTIVATIONS[activation]()]
    return nn.Sequential(*layers)


def _check_shapes(input_shape: Any, output_shape: Any) -> None:
    _, height, width = checks.image("input_shape", input_shape)
    if checks.image("output_shape", output_shape)[1:] != (height, width):
        raise ValueError(
            f"output_shape must be (channels, {height}, {width}), as high and wide as the input, "
            f"got {output_shape!r}; use model=cnn for another shape"
        )


def _check_divisible(input_shape: Sequence[int], depth: int) -> None:
    common = gcd(*input_shape[1:])
    if common % 2**depth:
        deepest = (common & -common).bit_length() - 1  # the power of two in the common divisor
        raise ValueError(
            f"input_shape must have height and width divisible by {2**depth}, as depth={depth} halves "
            f"them {depth} time{'s' * (depth > 1)}, got {tuple(input_shape)}; use model.depth={deepest}"
        )

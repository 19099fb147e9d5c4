"""Normalizations by name, for images, vectors and texts; ``none`` is always a choice beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import gcd

from torch import nn

Kinds = Mapping[str, Callable[[int], nn.Module]]


def _group(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(gcd(8, channels), channels)


IMAGE: Kinds = {"batch": nn.BatchNorm2d, "group": _group}  # of (B, C, H, W), per channel or group
VECTOR: Kinds = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}  # of (B, C)
TEXT: Kinds = {"layer": nn.LayerNorm, "rms": nn.RMSNorm}  # of (B, T, C), each token for itself


def norm_layers(kinds: Kinds, norm: str, width: int) -> list[nn.Module]:
    """The normalization as a list of one, or of none.

    ``batch`` is arXiv 1502.03167, ``group`` arXiv 1803.08494 with the greatest divisor of the width that
    divides 8 as number of groups, ``layer`` arXiv 1607.06450, ``rms`` arXiv 1910.07467. What comes
    before needs no bias: each brings a shift of its own, and batch normalization would subtract it.

    Args:
        kinds: `IMAGE`, `VECTOR` or `TEXT`.
        norm: one of its names, or "none".
        width: channels.
    """
    return [] if norm == "none" else [kinds[norm](width)]

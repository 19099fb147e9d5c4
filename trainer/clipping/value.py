"""Clipping entry by entry at one value."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trainer import checks
from trainer.clipping.clipped import REMEDY, Clipped, Stateless
from trainer.clipping.norms import total_norm


class ClipByValue(Stateless):
    """Clamps every entry of every gradient: g ← min(max(g, −c), c). Changes the direction.

    Args:
        clip_value: c, in units of a gradient entry; > 0.

    Raises:
        ValueError: if it is out of range.
    """

    norm_type, in_parts = 2.0, True

    def __init__(self, clip_value: float = 0.5) -> None:
        self.clip_value = checks.number("clip_value", clip_value, above=0, remedy=REMEDY)

    def __call__(self, gradients: list[Tensor], norm: Tensor) -> Clipped:
        """Clamps in place and measures the norm again."""
        # Infinite bounds leave a non-finite gradient as it is, without asking the device first.
        limit = torch.where(norm.isfinite(), self.clip_value, math.inf)
        limits = [limit.to(g.dtype) for g in gradients]
        torch._foreach_clamp_max_(gradients, limits)
        torch._foreach_clamp_min_(gradients, [-limit for limit in limits])
        return Clipped(norm=total_norm(gradients), threshold=self.clip_value)

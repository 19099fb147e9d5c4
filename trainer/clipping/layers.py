"""Clipping each parameter tensor by its own norm."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trainer import checks
from trainer.clipping.clipped import REMEDY, Clipped, Stateless
from trainer.clipping.norm import shrink
from trainer.clipping.norms import rescale_each, tensor_norms


class ClipByLayerNorm(Stateless):
    """Rescales each gradient tensor so that its own norm is at most ``max_norm``.

    gᵢ ← gᵢ · c / (‖gᵢ‖₂ + 1e-6) where ‖gᵢ‖₂ > c, else gᵢ bit for bit: the norm rule tensor by tensor
    (optax's ``clip_by_block_rms`` is its form for the root mean square). Keeps the direction of each
    tensor, not that of all together.

    Args:
        max_norm: c, in units of the norm of one tensor; > 0.

    Raises:
        ValueError: if it is out of range.
    """

    norm_type, in_parts = 2.0, True

    def __init__(self, max_norm: float = 1.0) -> None:
        self.max_norm = checks.number("max_norm", max_norm, above=0, remedy=REMEDY)

    def __call__(self, gradients: list[Tensor], norm: Tensor) -> Clipped:
        """Rescales in place."""
        norms = tensor_norms(gradients)
        limit = torch.where(norm.isfinite(), self.max_norm, math.inf)
        coefficients = shrink(norms, limit)
        rescale_each(gradients, coefficients)
        return Clipped(norm=torch.linalg.vector_norm(norms * coefficients), threshold=self.max_norm)

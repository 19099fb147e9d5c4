"""Clipping by the norm of all gradients together."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from trainer import checks
from trainer.clipping.clipped import REMEDY, Clipped, Stateless
from trainer.clipping.norms import SLACK, known_to_host


class ClipByNorm(Stateless):
    """Rescales all gradients together so that their norm is at most ``max_norm``.

    g ← g · c / (‖g‖_p + 1e-6) where ‖g‖_p > c, else g bit for bit (Pascanu et al. 2013,
    arXiv 1211.5063). Keeps the direction.

    Args:
        max_norm: c, in units of the gradient norm; > 0. Thresholds for different p do not compare.
        norm_type: p, one of 1, 2, inf.

    Raises:
        ValueError: if either is out of range.

    Example:
        >>> from trainer.clipping import total_norm
        >>> gradients = [torch.tensor([3.0]), torch.tensor([4.0])]
        >>> round(ClipByNorm(1.0)(gradients, total_norm(gradients)).coefficient, 4)
        0.2
    """

    in_parts = True

    def __init__(self, max_norm: float = 1.0, norm_type: float = 2.0) -> None:
        self.max_norm = checks.number("max_norm", max_norm, above=0, remedy=REMEDY)
        self.norm_type = _norm_type(norm_type)

    def threshold(self, norm: Tensor) -> float:
        """c, whatever the norm."""
        return self.max_norm

    def __call__(self, gradients: list[Tensor], norm: Tensor) -> Clipped:
        """Returns the coefficient in (0, 1] still to be applied; touches nothing itself."""
        return rescaled(norm, self.threshold(norm))


def rescaled(norm: Tensor, threshold: Tensor | float) -> Clipped:
    """The norm family's one formula: the coefficient that brings ``norm`` down to ``threshold``.

    At or under the threshold nothing is multiplied, so that an untouched gradient stays bit for bit;
    NaN and inf fail the comparison too, so neither is spread.

    Args:
        norm: shape () or (K,).
        threshold: c, a number that broadcasts against the norm.
    """
    if known_to_host(norm):  # six kernels on a scalar cost more than clipping a small model
        value, limit = norm.item(), float(threshold)
        if not limit * SLACK < value < math.inf:
            return Clipped(threshold=limit)
        return Clipped(limit / (value + 1e-6), threshold=limit)
    return Clipped(shrink(norm, threshold), threshold=threshold)


def shrink(norms: Tensor, limits: Tensor | float, margin: float = 1e-6) -> Tensor:
    """The coefficient that brings each norm down to its limit; 1 for those within it or not finite.

    Args:
        norms: any shape.
        limits: numbers that broadcast against the norms; inf for none.
        margin: what is added to a norm before dividing by it.
    """
    wide = norms.double()  # as the host counts, so that a member of K is clipped as it is alone
    beyond = (wide > limits * SLACK) & (wide < math.inf)
    return torch.where(beyond, limits / (wide + margin), 1.0).to(norms.dtype)


def _norm_type(value: Any) -> float:
    if isinstance(value, bool) or value not in (1, 2, math.inf, "inf"):
        raise ValueError(f"norm_type must be 1, 2 or inf, got {value!r}; 2 is the usual choice")
    return float(value)

"""Gradient clipping, each mode a small object called once a step.

A mode gets the gradients and their norm, measured before anything touches them, and answers with a
`Clipped`. Modes that only rescale (the norm family) leave the gradients alone and hand back the
coefficient: whoever commits the step multiplies, and a fused optimizer does that for free. Their
formula is ``threshold(norm)``, on a tensor of shape ``()`` for one run or ``(K,)`` for K runs.

A gradient that holds NaN or inf is never touched by any mode: rescaling would spread the NaN to every
parameter, clamping would pass the inf off as an ordinary value. Refusing such a step is the guard's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from trainer import checks

REMEDY = "use clip=none to train without clipping"


@dataclass(frozen=True, slots=True)
class Clipped:
    """What a clip did to one step's gradients.

    Attributes:
        coefficient: what the gradients are still to be multiplied by: a tensor shaped like the norm, or
            a float where the host knows the norm anyway; None when nothing is.
        norm: norm of the gradients after clipping; None where it is ``norm · coefficient``.
        threshold: the bound that was applied, for the record; None where there is none.
    """

    coefficient: Tensor | float | None = None
    norm: Tensor | None = None
    threshold: float | None = None


class Clip(Protocol):
    """A clipping mode: which norm it wants measured, and what it does with the gradients."""

    norm_type: float

    def __call__(self, gradients: list[Tensor], norm: Tensor) -> Clipped: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Stateless:
    """The part of a mode that remembers nothing between steps."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing to save."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


class NoClip(Stateless):
    """Leaves the gradients as they are; their 2-norm is still measured and recorded."""

    norm_type = 2.0

    def __call__(self, gradients: list[Tensor], norm: Tensor) -> Clipped:
        """Does nothing."""
        return Clipped()


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
        >>> gradients = [torch.tensor([3.0]), torch.tensor([4.0])]
        >>> round(ClipByNorm(1.0)(gradients, total_norm(gradients)).coefficient, 4)
        0.2
    """

    def __init__(self, max_norm: float = 1.0, norm_type: float = 2.0) -> None:
        self.max_norm = checks.number("max_norm", max_norm, above=0, remedy=REMEDY)
        self.norm_type = _norm_type(norm_type)

    def threshold(self, norm: Tensor) -> float:
        """c, whatever the norm."""
        return self.max_norm

    def __call__(self, gradients: list[Tensor], norm: Tensor) -> Clipped:
        """Returns the coefficient in (0, 1] still to be applied; touches nothing itself."""
        return rescaled(norm, self.threshold(norm))


class ClipByValue(Stateless):
    """Clamps every entry of every gradient: g ← min(max(g, −c), c). Changes the direction.

    Args:
        clip_value: c, in units of a gradient entry; > 0.

    Raises:
        ValueError: if it is out of range.
    """

    norm_type = 2.0

    def __init__(self, clip_value: float = 0.5) -> None:
        self.clip_value = checks.number("clip_value", clip_value, above=0, remedy=REMEDY)

    def __call__(self, gradients: list[Tensor], norm: Tensor) -> Clipped:
        """Clamps in place and measures the norm again."""
        largest = total_norm(gradients, math.inf)
        # Infinite bounds leave a non-finite gradient as it is, without asking the device first.
        limit = torch.where(torch.isfinite(largest), self.clip_value, math.inf)
        limits = [limit.to(g.dtype) for g in gradients]
        torch._foreach_clamp_max_(gradients, limits)
        torch._foreach_clamp_min_(gradients, [-limit for limit in limits])
        return Clipped(norm=total_norm(gradients), threshold=self.clip_value)


def rescaled(norm: Tensor, threshold: float) -> Clipped:
    """The norm family's one formula: the coefficient that brings ``norm`` down to ``threshold``.

    At or under the threshold nothing is multiplied, so that an untouched gradient stays bit for bit;
    NaN and inf fail the comparison too, so neither is spread.

    Args:
        norm: shape () or (K,).
        threshold: c, a number that broadcasts against the norm.
    """
    if known_to_host(norm):  # six kernels on a scalar cost more than clipping a small model
        value = norm.item()
        if not threshold < value < math.inf:
            return Clipped(threshold=threshold)
        return Clipped(threshold / (value + 1e-6), threshold=threshold)
    bound = (norm > threshold) & (norm < math.inf)
    return Clipped(torch.where(bound, threshold / (norm + 1e-6), 1.0), threshold=threshold)


def known_to_host(value: Tensor) -> bool:
    """Whether reading the tensor is free: one number, not on a device that runs ahead of the host."""
    return value.dim() == 0 and value.is_cpu


def total_norm(gradients: list[Tensor], norm_type: float = 2.0) -> Tensor:
    """‖g‖_p over all gradients as one vector: a tensor of shape (), no host synchronisation on CUDA.

    Entries near 3e30 overflow a float32 sum of squares, and a norm of inf would silently zero the
    step. So CUDA sums in float64, which costs it nothing (the read is the bottleneck); the CPU, where
    that would cost four times the read, does so only when the float32 sum has overflowed.

    Raises:
        ValueError: when there is no gradient at all.
    """
    if not gradients:
        raise ValueError("no parameter received a gradient: is the loss detached from the model?")
    if not gradients[0].is_cpu:
        return _norm_in(torch.float64, gradients, norm_type)
    wide = torch.float64 if gradients[0].dtype == torch.float64 else torch.float32
    norm = _norm_in(wide, gradients, norm_type)
    if not math.isfinite(norm.item()):
        norm = _norm_in(torch.float64, gradients, norm_type)
    return norm


def _norm_in(dtype: torch.dtype, gradients: list[Tensor], norm_type: float) -> Tensor:
    parts = torch._foreach_norm(gradients, norm_type, dtype=dtype)
    norm: Tensor = torch.linalg.vector_norm(torch.stack(parts), norm_type)
    return norm


def _norm_type(value: Any) -> float:
    if isinstance(value, bool) or value not in (1, 2, math.inf, "inf"):
        raise ValueError(f"norm_type must be 1, 2 or inf, got {value!r}; 2 is the usual choice")
    return float(value)

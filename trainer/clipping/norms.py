"""How long gradients are."""

from __future__ import annotations

import math

import torch
from torch import Tensor


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

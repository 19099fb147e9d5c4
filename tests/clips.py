"""What the tests of the clip modes share: some gradients, and a clip brought to its end."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainer.clipping import total_norm


def gradients(scale: float = 1.0, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """A matrix, a vector, a scalar and a kernel, the same on every call."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(5, 3), (5,), (), (2, 5, 1, 1)]
    return [scale * torch.randn(s, generator=generator, dtype=dtype) for s in shapes]


def clip(mode: Any, grads: list[Tensor]) -> list[Tensor]:
    """The gradients after the mode and the multiplication it may leave to the commit."""
    grads = [g.clone() for g in grads]
    clipped = mode(grads, total_norm(grads, mode.norm_type))
    if clipped.coefficient is not None:
        torch._foreach_mul_(grads, clipped.coefficient)
    return grads


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    """Whether all tensors are equal bit for bit, a NaN to a NaN."""
    return all(
        torch.equal(x.nan_to_num(7.0), y.nan_to_num(7.0)) and torch.equal(x.isnan(), y.isnan())
        for x, y in zip(a, b, strict=True)
    )

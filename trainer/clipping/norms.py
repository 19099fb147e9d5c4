"""How long gradients are, together and one by one."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from trainer.clipping.rows import Rows

# What is a millionth too long counts as within its bound: float32 measures no better, and so what was
# clipped before is left bit for bit.
SLACK = 1 + 1e-6


def known_to_host(value: Tensor) -> bool:
    """Whether reading the tensor is free: one number, not on a device that runs ahead of the host."""
    return value.dim() == 0 and value.is_cpu


def total_norm(gradients: list[Tensor], norm_type: float = 2.0) -> Tensor:
    """‖g‖_p over all gradients as one vector: a tensor of shape (), no host synchronisation on CUDA.

    Raises:
        ValueError: when there is no gradient at all.
    """
    if not gradients:
        raise ValueError("no parameter received a gradient: is the loss detached from the model?")
    if isinstance(gradients, Rows):
        whole: Tensor = torch.linalg.vector_norm(tensor_norms(gradients, norm_type), norm_type)
        return whole
    # From the last to the first: the optimizer begins with the first, which is then still in the cache.
    backwards = gradients[::-1]

    def measure(dtype: torch.dtype) -> Tensor:
        parts = torch._foreach_norm(backwards, norm_type, dtype=dtype)
        norm: Tensor = torch.linalg.vector_norm(torch.stack(parts), norm_type)
        return norm

    return wide_enough(measure, gradients[0])


def tensor_norms(tensors: list[Tensor], norm_type: float = 2.0) -> Tensor:
    """‖t‖_p of each tensor, shape (N,), without a host synchronisation on CUDA."""

    def measure(dtype: torch.dtype) -> Tensor:
        return torch.stack(torch._foreach_norm(tensors, norm_type, dtype=dtype))

    if isinstance(tensors, Rows):  # in float64, lest one process find that float32 will not do alone
        return tensors.together(measure(torch.float64), tensors.cut, norm_type)
    return wide_enough(measure, tensors[0])


def wide_enough(measure: Callable[[torch.dtype], Tensor], like: Tensor) -> Tensor:
    """What ``measure`` finds when it sums in a format that does not overflow.

    Entries near 3e30 overflow a float32 sum of squares, and a norm of inf would silently zero the
    step. So CUDA sums in float64, which costs it nothing (the read is the bottleneck); the CPU, where
    that would cost four times the read, does so only when the float32 sum has overflowed.

    Args:
        measure: norms, given the format to sum in.
        like: where the tensors are that it measures, and of which format.
    """
    if not like.is_cpu:
        return measure(torch.float64)
    norms = measure(torch.float64 if like.dtype == torch.float64 else torch.float32)
    finite = math.isfinite((norms.sum() if norms.dim() else norms).item())
    return norms if finite else measure(torch.float64)


def rescale_each(tensors: list[Tensor], coefficients: Tensor) -> None:
    """Multiplies each tensor in place by its own coefficient, shape (N,).

    A coefficient of 1 changes no bit; where the host can know it without waiting, that tensor is not
    even read.
    """
    if not coefficients.is_cpu:
        torch._foreach_mul_(tensors, list(coefficients.to(tensors[0].dtype).unbind()))
        return
    pairs = [pair for pair in zip(tensors, coefficients.tolist(), strict=True) if pair[1] != 1]
    if pairs:
        torch._foreach_mul_([tensor for tensor, _ in pairs], [factor for _, factor in pairs])

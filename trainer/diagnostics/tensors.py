"""Smallest, largest and spread of single tensors, in a form that is transferred with everything else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

BINS = 64


def extremes(tensors: Sequence[Tensor]) -> Tensor:
    """The smallest and the largest entry of each tensor, shape (2, N) float64.

    Example:
        >>> extremes([torch.tensor([3.0, -4.0]), torch.tensor([5.0])]).tolist()
        [[-4.0, 5.0], [3.0, 5.0]]
    """
    largest = torch.stack([value.double() for value in torch._foreach_max(list(tensors))])
    negated = torch._foreach_max(torch._foreach_neg(list(tensors)))
    return torch.stack((-torch.stack([value.double() for value in negated]), largest))


def histogram(tensor: Tensor) -> Tensor:
    """Smallest, largest, sum and sum of squares, then 64 counts of equal width: shape (4 + 64,) float64.

    Without a host synchronisation, which `torch.histc` needs on a GPU. Entries that are not finite are
    left out.

    Example:
        >>> histogram(torch.tensor([0.0, 1.0, 1.0]))[[0, 1, 2, 3, 4, -1]].tolist()
        [0.0, 1.0, 2.0, 2.0, 1.0, 2.0]
    """
    values = tensor.detach().flatten().double()
    finite = values.isfinite()
    values = values.where(finite, 0.0)
    low = values.where(finite, torch.inf).min()
    high = values.where(finite, -torch.inf).max()
    places = ((values - low) / (high - low).clamp_min(torch.finfo(values.dtype).tiny) * BINS).long()
    counts = values.new_zeros(BINS).scatter_add_(0, places.clamp_(0, BINS - 1), finite.double())
    moments = torch.stack((low, high, values.sum(), values.square().sum()))
    return torch.cat((moments, counts))


def buckets(row: Any) -> dict[str, Any]:
    """A transferred `histogram` as the fields of TensorBoard's message."""
    low, high, total, squares, *counts = row
    width = (high - low) / BINS
    limits = [low + width * (place + 1) for place in range(BINS - 1)]
    return {
        "min": low,
        "max": high,
        "num": sum(counts),
        "sum": total,
        "sum_squares": squares,
        "bucket_limit": [*limits, high],
        "bucket": counts,
    }

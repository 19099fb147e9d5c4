"""Weights that are one number, or one per member of K runs that are trained as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Weight = float | Tensor  # a tensor: (), or (K,) for K members
Value = tuple[Tensor, dict[str, Tensor]]


def keep(module: nn.Module, **weights: Weight) -> None:
    """Makes each weight an attribute; a tensor becomes a buffer, which moves with the module and which
    `torch.func.functional_call` can replace, but is no part of its state."""
    for name, weight in weights.items():
        if isinstance(weight, Tensor):
            module.register_buffer(name, weight, persistent=False)
        else:
            setattr(module, name, weight)


def each_member(formula: Callable[..., Value], weights: tuple[Weight, ...], *batch: Any) -> Value:
    """``formula(*weights, *batch)``, once for each member if any weight has a member axis.

    Args:
        formula: total and terms of one run.
        weights: numbers, tensors () or tensors (K,).
        batch: tensors, or tuples of tensors; (K, B, …) if any weight is (K,).

    Returns:
        Total and terms, of shape () or (K,).
    """
    if not any(map(_stacked, weights)):
        return formula(*weights, *batch)
    axes = (*(0 if _stacked(weight) else None for weight in weights), *(0 for _ in batch))
    return torch.vmap(formula, axes)(*weights, *batch)


def _stacked(weight: Weight) -> bool:
    return isinstance(weight, Tensor) and weight.dim() == 1

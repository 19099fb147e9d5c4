"""Weights that are learned beside the model: uncertainty weighting."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from losses.terms import Terms, weighed


class UncertaintyLoss(nn.Module):
    """Σ exp(−sᵢ)·Lᵢ + sᵢ, with sᵢ learned (Kendall et al. 2018, arXiv 1705.07115).

    sᵢ is the logarithm of a term's variance: a term that stays large is taken to be noisy and weighs
    less; where sᵢ has settled, exp(−sᵢ) = 1/Lᵢ. The loss may be negative. The optimizer trains s with
    the learning rate of the model; its weight decay draws the weights to 1. The gradient into s, about 1
    a term at first, counts in the norm that is clipped.

    Args:
        terms: the losses Lᵢ by name, at least two.

    Raises:
        ValueError: if there are fewer, or one is no loss.

    Example:
        >>> loss, terms = UncertaintyLoss({"l1": nn.L1Loss(), "mse": nn.MSELoss()})(
        ...     torch.zeros(4), torch.full((4,), 2.0)
        ... )
        >>> loss.item(), terms["weight_mse"].item()
        (6.0, 1.0)
    """

    def __init__(self, terms: Mapping[str, Callable[..., Any]]) -> None:
        super().__init__()
        self.terms = Terms(terms)
        self.s = nn.Parameter(torch.zeros(len(terms)))

    def forward(self, predictions: Tensor, targets: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum; the unweighted terms, and ``weight_<term>`` = exp(−sᵢ)."""
        total, recorded = weighed(self.terms(predictions, targets), torch.exp(-self.s))
        return total + self.s.sum(), recorded

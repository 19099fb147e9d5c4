"""Weights by how fast each term falls: dynamic weight average."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from losses import checks
from losses.terms import Terms, weighed

MOST = 1e6  # of rᵢ: softmax(inf) is NaN


class DynamicWeightAverageLoss(nn.Module):
    """Σ wₖLₖ with w = K·softmax(r/T), rₖ = Lₖ(t−1)/Lₖ(t−2) (Liu et al. 2019, arXiv 1803.10704).

    Lₖ(t) is a term's mean over the t-th window of training calls: a term that falls slowly weighs more.
    Until two windows are full all weights are 1. The paper's window is an epoch. Calls in evaluation
    mode, and calls with a term that is not finite, count for nothing.

    Args:
        terms: the losses Lₖ by name, at least two.
        temperature: T, > 0; the larger, the more equal the weights.
        window: batches per window, >= 1.

    Raises:
        ValueError: for a number out of range, for fewer than two terms, or if one is no loss.

    Example:
        >>> loss, terms = DynamicWeightAverageLoss({"l1": nn.L1Loss(), "mse": nn.MSELoss()})(
        ...     torch.zeros(4), torch.full((4,), 2.0)
        ... )
        >>> loss.item(), terms["weight_mse"].item()
        (6.0, 1.0)
    """

    earlier: Tensor
    sums: Tensor
    count: Tensor

    def __init__(
        self, terms: Mapping[str, Callable[..., Any]], temperature: float = 2.0, window: int = 50
    ) -> None:
        super().__init__()
        self.terms = Terms(terms)
        self.temperature = checks.number("temperature", temperature, "a finite number >= 0.01", 0.01)
        self.window = checks.whole("window", window, 1)
        self.register_buffer("earlier", torch.zeros(2, len(terms)))  # L(t−1), L(t−2); 0 before they are
        self.register_buffer("sums", torch.zeros(len(terms)))
        self.register_buffer("count", torch.zeros(()))

    def forward(self, predictions: Tensor, targets: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum; the unweighted terms, and ``weight_<term>`` = wₖ."""
        terms = self.terms(predictions, targets)
        last, before = self.earlier
        falls = torch.where(before > 0, last / torch.where(before > 0, before, 1.0), 1.0)
        weights = len(terms) * torch.softmax(falls.clamp_max(MOST) / self.temperature, 0)
        if self.training:
            self._count(torch.stack([term.detach() for term in terms.values()]))
        return weighed(terms, weights)

    def _count(self, values: Tensor) -> None:
        """Adds to the window, and closes it when it is full; no branch, which would wait for a GPU."""
        finite = values.isfinite().all()
        sums = self.sums + torch.where(finite, values, 0.0)
        count = self.count + finite
        full = count == self.window
        closed = torch.stack([sums / self.window, self.earlier[0]])
        self.earlier.copy_(torch.where(full, closed, self.earlier))
        self.sums.copy_(torch.where(full, 0.0, sums))
        self.count.copy_(torch.where(full, 0.0, count))

"""Weights that are learned so that every term pulls its share: GradNorm."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from losses import checks
from losses.numerics import stable_divide
from losses.terms import Terms, weighed


class GradNormLoss(nn.Module):
    """Σ wᵢLᵢ, with w learned so that every Gᵢ = ‖wᵢ·∂Lᵢ/∂p‖ comes to Ḡ·rᵢ^α.

    GradNorm (Chen et al. 2018, arXiv 1711.02257): Ḡ is the mean of the Gᵢ, and rᵢ = (Lᵢ/Lᵢ(0)) over the
    mean of these ratios, large for a term that learns slowly. The weights are n·softmax(s), so that they
    stay positive and sum to n. Σ|Gᵢ − Ḡ·rᵢ^α|, in which only the weights of the Gᵢ are variable, has a
    gradient into s alone and adds nothing to the value; the terms have none into s.

    The paper takes the gradient into the last shared layer. A loss sees predictions only, so here it is
    the gradient into the predictions: the same but for the common factor ∂p/∂(that layer).

    Args:
        terms: the losses Lᵢ by name, at least two; functions without state of their own.
        alpha: α, how much the slow terms are favoured; >= 0, 0 asks for equal pulls.

    Raises:
        ValueError: for a bad α, for fewer than two terms, or if one is no loss.

    Example:
        >>> loss, terms = GradNormLoss({"l1": nn.L1Loss(), "mse": nn.MSELoss()})(
        ...     torch.zeros(4, requires_grad=True), torch.full((4,), 2.0)
        ... )
        >>> loss.item(), terms["weight_mse"].item()
        (6.0, 1.0)
    """

    initial: Tensor
    own_gradient = ("s",)  # not the derivative of the value; for whoever checks gradients

    def __init__(self, terms: Mapping[str, Callable[..., Any]], alpha: float = 1.5) -> None:
        super().__init__()
        self.terms = Terms(terms)
        self.alpha = checks.number("alpha", alpha, "a finite number >= 0", 0)
        self.s = nn.Parameter(torch.zeros(len(terms)))
        self.register_buffer("initial", torch.zeros(len(terms)))  # Lᵢ(0); 0 as long as there is none

    def forward(self, predictions: Tensor, targets: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum; the unweighted terms, and ``weight_<term>`` = wᵢ.

        Lᵢ(0) are those of the first call in training whose terms are finite.
        """
        terms = self.terms(predictions, targets)
        weights = len(terms) * torch.softmax(self.s, 0)
        total, recorded = weighed(terms, weights.detach())
        if self.training and torch.is_grad_enabled():
            values = torch.stack([term.detach() for term in terms.values()]).to(self.initial.dtype)
            first = (self.initial == 0).all() & values.isfinite().all()
            self.initial.copy_(torch.where(first, values, self.initial))
            imbalance = self._imbalance(weights * self._pulls(predictions, targets), values)
            total = total + (imbalance - imbalance.detach())
        return total, recorded

    def _pulls(self, predictions: Tensor, targets: Any) -> Tensor:
        """‖∂Lᵢ/∂p‖ of each term, shape (terms,); by `torch.func`, which vmap can go through."""

        def stacked(p: Tensor) -> Tensor:
            return torch.stack(list(self.terms(p, targets).values()))

        jacobian = torch.func.jacrev(stacked)(predictions.detach())
        pulls: Tensor = torch.linalg.vector_norm(jacobian.flatten(1), dim=1).to(self.s.dtype)
        return pulls

    def _imbalance(self, pulls: Tensor, values: Tensor) -> Tensor:
        known = self.initial > 0
        ratios = torch.where(known, values / torch.where(known, self.initial, 1.0), 1.0)
        slowness = stable_divide(ratios, ratios.mean())
        wanted = pulls.detach().mean() * slowness**self.alpha
        return (pulls - wanted).abs().sum()

"""Clipping norms that stand out from a moving average."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainer import checks
from trainer.clipping.clipped import REMEDY, Clipped
from trainer.clipping.norm import rescaled
from trainer.clipping.scalars import Number, beside, larger, number, root, smaller, where
from trainer.clipping.window import NormWindow, informative

TINY = 1e-100  # σ before there is any
OUTLIER = 10.0  # times the median: no norm of the warm-up counts for more


class ZClip:
    """Clips norms whose z-score against the steps so far is beyond z*.

    z = (‖g‖₂ − μ)/σ; where z > z*, g is rescaled to the norm c = μ + (z*²/z)·σ, so that the further out,
    the closer to μ. μ and σ² are moving averages of the norm after clipping: μ ← αμ + (1−α)n,
    σ² ← ασ² + (1−α)(n − μ)² (Kumar et al. 2025, arXiv 2504.02507). Keeps the direction.

    Until ``warmup`` norms are known c = ``max_norm``; μ and σ² then start as their mean and variance, a
    norm beyond 10 times their median counted as that: one huge first gradient would otherwise blind it
    for hundreds of steps. σ is at least ``min_sigma``·μ, since where all norms are equal any other would
    stand out, and a threshold at μ would keep μ where it is for ever.

    Args:
        z_threshold: z*, in standard deviations; > 0.
        alpha: α, the share of the past; 0 <= α < 1.
        warmup: norms to know before the score counts, >= 2.
        max_norm: the threshold until then; > 0.
        min_sigma: floor of σ, as a share of μ; > 0. 0.1 never clips a norm below 1.25·μ.

    Raises:
        ValueError: for an argument out of range.
    """

    norm_type, in_parts = 2.0, True

    def __init__(
        self,
        z_threshold: float = 2.5,
        alpha: float = 0.97,
        warmup: int = 25,
        max_norm: float = 1.0,
        min_sigma: float = 0.1,
    ) -> None:
        self.z_threshold = checks.number("z_threshold", z_threshold, above=0, remedy=REMEDY)
        self.alpha = checks.number("alpha", alpha, at_least=0, below=1)
        self.warmup = checks.whole("warmup", warmup, at_least=2)
        self.max_norm = checks.number("max_norm", max_norm, above=0, remedy=REMEDY)
        self.min_sigma = checks.number("min_sigma", min_sigma, above=0)
        self.first = NormWindow(self.warmup)
        self.mean: Number = 0.0
        self.variance: Number = 0.0

    def threshold(self, norm: Tensor) -> Number:
        """c for a norm of shape () or (K,); for one that does not stand out, where that would begin."""
        n = number(norm)
        self._move(n)
        sigma = larger(root(self.variance), self.min_sigma * self.mean + TINY)
        z = (n - self.mean) / sigma
        reach = self.z_threshold / larger(self.z_threshold, z)
        learned = self.mean + self.z_threshold * reach * sigma
        return where(self.first.count < self.warmup, self.max_norm, learned)

    def __call__(self, gradients: list[Tensor], norm: Tensor) -> Clipped:
        """Returns the coefficient still to be applied, and takes the norm into account."""
        threshold = self.threshold(norm)
        self._accept(number(norm), threshold)
        return rescaled(norm, threshold)

    def _accept(self, n: Number, threshold: Number) -> None:
        known, warm = informative(n), self.first.count < self.warmup
        after = smaller(threshold, n)
        mean = self.alpha * self.mean + (1 - self.alpha) * after
        apart = after - mean
        variance = self.alpha * self.variance + (1 - self.alpha) * (apart * apart)
        moves = known & (self.first.count >= self.warmup)
        self.mean = where(moves, mean, self.mean)
        self.variance = where(moves, variance, self.variance)
        if isinstance(n, Tensor) or warm:  # without the host the start is computed in every step
            self.first.add(n, warm)
            self._start(known & warm & (self.first.count == self.warmup))

    def _start(self, now: Tensor | bool) -> None:
        """Sets mean and variance to those of the warm-up, for the members that are now through it."""
        first = self.first.norms.clamp(max=OUTLIER * self.first.quantile(0.5))
        # Running sums, whose order does not depend on how many members there are.
        mean = first.cumsum(0)[-1] / self.warmup
        variance = (first - mean).square().cumsum(0)[-1] / self.warmup
        self.mean = where(now, beside(mean, self.mean), self.mean)
        self.variance = where(now, beside(variance, self.variance), self.variance)

    def _move(self, norm: Number) -> None:
        self.first.to(norm)
        self.mean, self.variance = beside(self.mean, norm), beside(self.variance, norm)

    def state_dict(self) -> dict[str, Any]:
        """Mean, variance and the norms of the warm-up."""
        numbers = {"mean": self.mean, "variance": self.variance}
        numbers = {name: torch.as_tensor(n, dtype=torch.float64) for name, n in numbers.items()}
        return {**numbers, "first": self.first.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores them."""
        self.mean, self.variance = state["mean"], state["variance"]
        self.first.load_state_dict(state["first"])

"""Clipping norms that stand out from a moving average."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from trainer import checks
from trainer.clipping.clipped import REMEDY, Clipped
from trainer.clipping.norm import rescaled
from trainer.clipping.norms import known_to_host
from trainer.clipping.window import NormWindow, informative

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

    norm_type = 2.0

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
        self.mean = torch.zeros((), dtype=torch.float64)
        self.variance = torch.zeros((), dtype=torch.float64)

    def threshold(self, norm: Tensor) -> Tensor:
        """c for a norm of shape () or (K,); for one that does not stand out, where that would begin."""
        self._move(norm.device)
        sigma = torch.maximum(self.variance.sqrt(), self.min_sigma * self.mean)
        z = (norm.double() - self.mean) / sigma
        reach = torch.where(z > self.z_threshold, self.z_threshold / z, 1.0)
        learned = self.mean + self.z_threshold * reach * sigma
        return torch.where(self._warming_up(), self.max_norm, learned)

    def __call__(self, gradients: list[Tensor], norm: Tensor) -> Clipped:
        """Returns the coefficient still to be applied, and takes the norm into account."""
        threshold = self.threshold(norm)
        self._accept(norm, torch.minimum(norm.double(), threshold))
        return rescaled(norm, threshold)

    def _accept(self, norm: Tensor, after: Tensor) -> None:
        known, warm = informative(norm), self._warming_up()
        mean = self.alpha * self.mean + (1 - self.alpha) * after
        variance = self.alpha * self.variance + (1 - self.alpha) * (after - mean).square()
        moves = known & ~warm
        self.mean = torch.where(moves, mean, self.mean)
        self.variance = torch.where(moves, variance, self.variance)
        if not known_to_host(norm) or warm:  # without the host the start is computed in every step
            self.first.add(norm, warm)
            self._start(known & warm & (self.first.count == self.warmup))

    def _start(self, now: Tensor) -> None:
        """Sets mean and variance to those of the warm-up, for the members that are now through it."""
        first = torch.minimum(self.first.norms, OUTLIER * self.first.quantile(0.5))
        # Running sums, whose order does not depend on how many members there are.
        mean = first.cumsum(0)[-1] / self.warmup
        variance = (first - mean).square().cumsum(0)[-1] / self.warmup
        self.mean = torch.where(now, mean, self.mean)
        self.variance = torch.where(now, variance, self.variance)

    def _warming_up(self) -> Tensor:
        return self.first.count < self.warmup

    def _move(self, device: torch.device) -> None:
        self.mean, self.variance = self.mean.to(device), self.variance.to(device)
        self.first.to(device)

    def state_dict(self) -> dict[str, Any]:
        """Mean, variance and the norms of the warm-up."""
        return {"mean": self.mean, "variance": self.variance, "first": self.first.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores them."""
        self.mean, self.variance = state["mean"], state["variance"]
        self.first.load_state_dict(state["first"])

"""Clipping at a percentile of the norms so far."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from trainer import checks
from trainer.clipping.clipped import REMEDY, Clipped
from trainer.clipping.norm import rescaled
from trainer.clipping.scalars import Number, number, where
from trainer.clipping.window import NormWindow


class AutoClip:
    """Clips by the norm at the p-th percentile of the norms of past steps.

    g ← g · min(1, c/‖g‖₂), c = percentile_p(‖g₁‖, …, ‖gₜ₋₁‖) over the latest ``window`` steps
    (Seetharaman et al. 2020, arXiv 2007.14469). The norm of the present step is not among them, or a
    huge first gradient would be its own percentile. While fewer than ``warmup`` norms are known,
    c = ``max_norm``. Keeps the direction.

    Args:
        percentile: p, in (0, 100]. 10 clips nine steps in ten, which is meant: steps of nearly equal
            length.
        window: how many norms are remembered, >= ``warmup``.
        warmup: norms to know before the percentile counts, >= 1.
        max_norm: the threshold until then; > 0.

    Raises:
        ValueError: for an argument out of range.
    """

    norm_type, in_parts = 2.0, True

    def __init__(
        self, percentile: float = 10.0, window: int = 1000, warmup: int = 25, max_norm: float = 1.0
    ) -> None:
        self.percentile = checks.number("percentile", percentile, above=0)
        if self.percentile > 100:
            raise ValueError(f"percentile must be <= 100, got {percentile!r}; 100 is the largest norm")
        self.warmup = checks.whole("warmup", warmup, at_least=1)
        self.past = NormWindow(checks.whole("window", window, at_least=self.warmup))
        self.max_norm = checks.number("max_norm", max_norm, above=0, remedy=REMEDY)

    def threshold(self, norm: Tensor) -> Number:
        """c for the step to come, whatever its norm."""
        self.past.to(number(norm))
        learned = self.past.quantile(self.percentile / 100)
        return where(self.past.count < self.warmup, self.max_norm, learned)

    def __call__(self, gradients: list[Tensor], norm: Tensor) -> Clipped:
        """Returns the coefficient still to be applied, and remembers the norm as it was before."""
        threshold = self.threshold(norm)
        self.past.add(number(norm))
        return rescaled(norm, threshold)

    def state_dict(self) -> dict[str, Any]:
        """The norms so far."""
        return self.past.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores them."""
        self.past.load_state_dict(state)

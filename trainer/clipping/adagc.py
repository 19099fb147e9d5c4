"""Clipping each tensor by its own past."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainer import checks
from trainer.clipping.clipped import REMEDY, Clipped, present
from trainer.clipping.norm import shrink
from trainer.clipping.norms import rescale_each, tensor_norms
from trainer.clipping.window import informative


class AdaGC:
    """Clips each gradient tensor against a moving average of its own clipped norm.

    hᵢ = min(1, λ·γᵢ/‖gᵢ‖₂), gᵢ ← hᵢ·gᵢ, γᵢ ← βγᵢ + (1−β)·hᵢ‖gᵢ‖₂ (Wang et al. 2025, arXiv 2502.11034).
    In the first ``warmup`` steps in which a tensor has a gradient it is clipped with all others, by the
    global norm, hᵢ = min(1, c/‖g‖₂), and γᵢ is the mean of hᵢ‖gᵢ‖₂ so far.

    A gradient of 0 leaves γᵢ as it is, and γᵢ is at least ε: a threshold of 0 would be the last, and one
    near 0 grows by a thousandth a step. For that reason γᵢ starts as a mean and not, as in the paper, as
    the least norm of the warm-up.

    Keeps the direction of each tensor, not that of all together. Needs `bind`.

    Args:
        factor: λ, how far beyond its past a tensor may go; > 1.
        beta: β, the share of the past; 0 <= β < 1.
        warmup: steps in which a tensor is clipped by the global norm, >= 1.
        max_norm: c, the threshold of the global norm in those; > 0.
        eps: ε, least γᵢ, in units of the norm of a tensor; > 0.

    Raises:
        ValueError: for an argument out of range.
    """

    norm_type, in_parts = 2.0, True

    def __init__(
        self,
        factor: float = 1.05,
        beta: float = 0.98,
        warmup: int = 100,
        max_norm: float = 1.0,
        eps: float = 1e-6,
    ) -> None:
        self.factor = checks.number("factor", factor, above=1, remedy="at 1 no norm could grow again")
        self.beta = checks.number("beta", beta, at_least=0, below=1)
        self.warmup = checks.whole("warmup", warmup, at_least=1)
        self.max_norm = checks.number("max_norm", max_norm, above=0, remedy=REMEDY)
        self.eps = checks.number("eps", eps, above=0)
        self.parameters: list[nn.Parameter] = []
        self.average = torch.zeros(0, dtype=torch.float64)
        self.seen = torch.zeros(0, dtype=torch.int64)
        self.places: list[int] = []
        self.here = torch.zeros(0, dtype=torch.int64)

    def bind(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Takes note of the parameters, whose places the averages go by, and starts anew."""
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.average = torch.zeros(len(self.parameters), dtype=torch.float64)
        self.seen = torch.zeros(len(self.parameters), dtype=torch.int64)

    def __call__(self, gradients: list[Tensor], norm: Tensor) -> Clipped:
        """Rescales in place.

        Raises:
            ValueError: if it is not bound to the parameters of these gradients.
        """
        norms = tensor_norms(gradients).double()
        average, seen = self.average.to(norm.device), self.seen.to(norm.device)
        places = present(self.parameters, len(gradients))
        if places != self.places or self.here.device != norm.device:  # a copy to a GPU would wait for it
            self.places, self.here = places, torch.tensor(places, device=norm.device)
        here = self.here
        mine, steps = average[here], seen[here]
        limits = torch.where(
            steps < self.warmup, norms * shrink(norm, self.max_norm), self.factor * mine
        )
        coefficients = shrink(norms, torch.where(norm.isfinite(), limits, math.inf), margin=0.0)
        after = norms * coefficients
        known = informative(norms) & norm.isfinite()
        share = torch.where(steps < self.warmup, 1 / (steps + 1).double(), 1 - self.beta)
        moved = mine + share * (after - mine)
        self.average = average.index_put((here,), torch.where(known, moved.clamp(min=self.eps), mine))
        self.seen = seen.index_put((here,), steps + known)
        rescale_each(gradients, coefficients)
        return Clipped(norm=torch.linalg.vector_norm(after))

    def state_dict(self) -> dict[str, Any]:
        """The averages, and the steps that each tensor was seen in."""
        return {"average": self.average, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores them.

        Raises:
            ValueError: if they are of another number of tensors.
        """
        if len(state["average"]) != len(self.parameters):
            raise ValueError(
                f"the saved averages must be of {len(self.parameters)} tensors, "
                f"got {len(state['average'])}"
            )
        self.average, self.seen = state["average"], state["seen"]

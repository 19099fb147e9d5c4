"""Clipping entries that stand out from Adam's second moment, and restarting the moments."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Adam, Optimizer

from trainer import checks
from trainer.clipping.clipped import REMEDY, Clipped, present
from trainer.clipping.norms import total_norm


class SPAM:
    """Spike-aware Adam: clips entries far beyond their own second moment, and restarts the moments.

    g ← sign(g)·√(θv) where g² > θv, entry by entry, with v the ``exp_avg_sq`` of Adam before this step
    (Huang et al. 2025, arXiv 2501.06842). After every ΔT steps m, v and Adam's step count go back to 0,
    so that a spike that came through does not live on in them; the learning rate then rises again,
    lr·(1 − cos(πk/N))/2 in the k-th of N steps.

    An entry whose v is 0 has had no gradient so far: θv = 0 would keep it from ever having one. It is
    held to ``max_value`` instead, which keeps a huge first gradient from overflowing v. The step that
    ends a period is still held to the old v. Changes the direction of the gradient.

    Needs `bind`, and an optimizer with Adam's moments.

    Args:
        theta: θ, how many times v the square of an entry may be; > 1/(1 − β₂). 5000 is 70 times the
            root mean square of the entry's past, and √5 times a single one under β₂ = 0.999.
        every: ΔT, steps between two restarts of the moments, >= 1.
        warmup: N, steps that the learning rate then takes to rise, 0 <= N < ΔT.
        max_value: bound of an entry that has had no gradient yet, in units of a gradient entry; > 0.

    Raises:
        ValueError: for an argument out of range.
    """

    norm_type, in_parts = 2.0, True
    optimizer: Optimizer  # once bound

    def __init__(
        self, theta: float = 5000.0, every: int = 500, warmup: int = 150, max_value: float = 1.0
    ) -> None:
        self.theta = checks.number("theta", theta, above=1, remedy=REMEDY)
        self.every = checks.whole("every", every, at_least=1)
        self.warmup = checks.whole("warmup", warmup, below=self.every)
        self.max_value = checks.number("max_value", max_value, above=0, remedy=REMEDY)
        self.parameters: list[nn.Parameter] = []
        self.steps = 0

    def bind(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Takes note of the parameters and of Adam's moments, which it goes by.

        Raises:
            ValueError: if it keeps none, or ``theta`` is too small for its β₂.
        """
        if not isinstance(optimizer, Adam):  # AdamW is one
            raise ValueError(
                f"clip=spam needs the moments of Adam or AdamW, got {type(optimizer).__name__}; "
                "use optimizer=adamw, or another clip"
            )
        least = max(1 / (1 - group["betas"][1]) for group in optimizer.param_groups)
        if self.theta <= least:
            raise ValueError(
                f"clip.theta must be > 1/(1 − β₂) = {least:g}, got {self.theta:g}; below it a second "
                "gradient equal to the first is clipped"
            )
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.optimizer = optimizer

    def __call__(self, gradients: list[Tensor], norm: Tensor) -> Clipped:
        """Clamps in place, restarts the moments when due, and measures the norm again.

        Raises:
            ValueError: if it is not bound to the parameters of these gradients.
        """
        places = present(self.parameters, len(gradients))
        squares = []
        for gradient, place in zip(gradients, places, strict=True):
            square = self.optimizer.state[self.parameters[place]].get("exp_avg_sq")
            squares.append(torch.zeros_like(gradient) if square is None else square)
        limit = torch.where(norm.isfinite(), self.max_value, math.inf)
        for portion in _portions(gradients):
            self._clamp(gradients[portion], squares[portion], limit)
        self.steps += 1
        return Clipped(norm=total_norm(gradients), lr_factor=self._restart())

    def _clamp(self, gradients: list[Tensor], squares: list[Tensor], limit: Tensor) -> None:
        """To √(θv) where v > 0, to the limit where it is 0; to inf everywhere if the limit is."""
        bounds: list[Tensor] = list(torch._foreach_mul(squares, self.theta))
        torch._foreach_sqrt_(bounds)
        unseen = list(torch._foreach_sign(squares))  # 1 where v > 0, which takes the limit away again
        torch._foreach_mul_(unseen, -self.max_value)
        torch._foreach_add_(unseen, [limit.to(square.dtype) for square in squares])
        torch._foreach_add_(bounds, unseen)
        torch._foreach_clamp_max_(gradients, bounds)
        torch._foreach_neg_(bounds)
        torch._foreach_clamp_min_(gradients, bounds)

    def _restart(self) -> float:
        """Sets the moments back if a period ends with this step; the factor of its learning rate."""
        since = self.steps % self.every
        if since == 0:
            # In place: whoever steps may hold on to these very tensors.
            for state in self.optimizer.state.values():
                for tensor in state.values():
                    tensor.zero_()
        rises = self.steps >= self.every and since < self.warmup
        return (1 - math.cos(math.pi * (since + 1) / self.warmup)) / 2 if rises else 1.0

    def state_dict(self) -> dict[str, Any]:
        """How many steps it has seen; the moments are the optimizer's."""
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores it."""
        self.steps = state["steps"]


def _portions(tensors: list[Tensor], entries: int = 2**20) -> Iterator[slice]:
    """Of about so many entries: bounds for all at once would cost twice the memory of the model, and
    the CPU twice the time."""
    start = total = 0
    for end, tensor in enumerate(tensors, 1):
        total += tensor.numel()
        if total >= entries or end == len(tensors):
            yield slice(start, end)
            start, total = end, 0

"""Adagrad as the other optimizers are: without state before its first step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class Adagrad(torch.optim.Adagrad):
    """s ← s + g²;  w ← w − lr/(1 + (t − 1)·lr_decay) · g/(√s + ε) (Duchi 2011).

    torch's makes its sums in the constructor: they stay behind when the model then moves to a device or
    becomes float64, and a rewind that empties the state leaves it without. Here each is made at the
    first step of its parameter; the steps are torch's.

    Args:
        params: parameters or groups of them.
        lr: learning rate.
        lr_decay: of the learning rate, per step.
        initial_accumulator_value: s before the first step.
        eps: ε.
        weight_decay: λ, added to the gradient.
        foreach: all parameters at once.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        weight_decay: float = 0.0,
        foreach: bool = True,
    ) -> None:
        first = initial_accumulator_value
        super().__init__(params, lr, lr_decay, weight_decay, first, eps, foreach)
        self.state.clear()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """torch's step."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and not self.state[parameter]:
                    first = torch.full_like(parameter, group["initial_accumulator_value"])
                    self.state[parameter] = {"step": torch.tensor(0.0), "sum": first.detach()}
        return super().step(closure)

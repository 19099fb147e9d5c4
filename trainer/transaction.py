"""The step as a transaction: what a forward pass changed is taken back, or everything is committed."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainer.clipping import Clipped
from trainer.shortcuts import FusedAdam


class Transaction:
    """Commits a step or leaves no trace of it.

    The forward pass already writes to buffers (BatchNorm's running statistics), before anyone can know
    whether the step is good; so they are copied aside first.

    Args:
        modules: the model and, if it has state, the loss.
        optimizer: what `commit` steps.
    """

    def __init__(self, modules: Iterable[nn.Module], optimizer: Optimizer) -> None:
        self.buffers = [buffer for module in modules for buffer in module.buffers()]
        self.saved = [torch.empty_like(buffer) for buffer in self.buffers]
        self.optimizer = optimizer
        self.rides = _takes_scale(optimizer)
        self.shortcut = FusedAdam(optimizer)

    def begin(self) -> None:
        """Before the forward pass."""
        if self.buffers:
            torch._foreach_copy_(self.saved, self.buffers)

    def roll_back(self) -> None:
        """Instead of `commit`: parameters and optimizer were not touched yet, buffers are restored."""
        if self.buffers:
            torch._foreach_copy_(self.buffers, self.saved)

    def commit(self, gradients: list[Tensor], clipped: Clipped) -> None:
        """Applies the clip's coefficient and takes the optimizer step.

        A fused optimizer divides each gradient by ``grad_scale`` as it reads it, so the coefficient
        costs no pass of its own over the gradients.
        """
        scale: Tensor | None = None
        if clipped.coefficient is not None and self.rides:
            scale = torch.as_tensor(1.0 / clipped.coefficient, dtype=torch.float32)
        elif clipped.coefficient is not None:
            torch._foreach_mul_(gradients, clipped.coefficient)
        if not self.shortcut.step(gradients, scale):
            self.optimizer.grad_scale = scale  # type: ignore[attr-defined]
            self.optimizer.step()


def _takes_scale(optimizer: Optimizer) -> bool:
    # The fused kernels read the scale as float32, too coarse for float64 parameters.
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    wide = any(parameter.dtype == torch.float64 for parameter in parameters)
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False)) and not wide

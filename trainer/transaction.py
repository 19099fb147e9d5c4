"""The step as a transaction: what a forward pass changed is taken back, or everything is committed."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainer.clipping import Clipped, total_norm
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
        pairs = zip(self.buffers, self.saved, strict=True)
        # A mask of -inf is no statistic that has run away.
        statistics = [pair for pair in pairs if pair[0].is_floating_point() and pair[0].isfinite().all()]
        self.watched, self.earlier = ([pair[i] for pair in statistics] for i in (0, 1))
        self.optimizer = optimizer
        # torch's word for fused kernels that read grad_scale and found_inf
        self.heeds = bool(getattr(optimizer, "_step_supports_amp_scaling", False))
        self.rides = self.heeds and not _is_wide(optimizer)
        self.shortcut = FusedAdam(optimizer)

    def begin(self) -> None:
        """Before the forward pass."""
        if self.buffers:
            torch._foreach_copy_(self.saved, self.buffers)

    def largest_buffer(self) -> Tensor | None:
        """The largest absolute entry of the buffers after the forward pass, shape (); None without any.

        The variance of a huge batch overflows in batch normalization, or is merely huge, while its
        output, the loss and the gradient stay what they were.
        """
        return total_norm(self.watched, math.inf) if self.watched else None

    def measure(self, gradients: list[Tensor], norm_type: float) -> tuple[Tensor, Tensor | None]:
        """What the step is judged by: the norm of the gradients, and `largest_buffer`."""
        return total_norm(gradients, norm_type), self.largest_buffer()

    def roll_back(self) -> None:
        """Instead of `commit`: parameters and optimizer were not touched yet, buffers are restored."""
        if self.buffers:
            torch._foreach_copy_(self.buffers, self.saved)

    def commit(
        self,
        gradients: list[Tensor],
        clipped: Clipped,
        lr_factor: float = 1.0,
        refused: Tensor | None = None,
    ) -> None:
        """Applies the clip's coefficient and takes the optimizer step, its learning rates multiplied by
        ``lr_factor`` and the clip's own for this once.

        A fused optimizer divides each gradient by ``grad_scale`` as it reads it, so the coefficient
        costs no pass of its own over the gradients; and it does nothing where ``found_inf`` is 1, so a
        verdict that is still on its way on a device need not be waited for.

        Args:
            gradients: of the parameters, in the order of the optimizer's groups.
            clipped: what the clip made of them.
            lr_factor: of the learning rates.
            refused: the guard's verdict, shape (), where the host does not know it; None is a commit.
        """
        # The first step makes the moments: fused SGD would leave them as the memory was.
        if refused is not None and not (self.heeds and self.optimizer.state):
            if refused:
                self.roll_back()
                return
            refused = None
        scale: Tensor | None = None
        coefficient = clipped.coefficient
        if coefficient is not None and self._can_ride(coefficient):
            scale = torch.as_tensor(1.0 / coefficient, dtype=torch.float32)
        elif coefficient is not None:
            torch._foreach_mul_(gradients, coefficient)
        lr_factor *= clipped.lr_factor
        if lr_factor == 1:
            self._update(gradients, scale, refused)
            return
        rates = [group["lr"] for group in self.optimizer.param_groups]
        for group in self.optimizer.param_groups:
            group["lr"] = group["lr"] * lr_factor  # a rate that is a tensor must not change itself
        self._update(gradients, scale, refused)
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def _update(self, gradients: list[Tensor], scale: Tensor | None, refused: Tensor | None) -> None:
        if refused is None and self.shortcut.step(gradients, scale):
            return
        found_inf = None if refused is None else refused.float()
        vars(self.optimizer).update(grad_scale=scale, found_inf=found_inf)
        self.optimizer.step()
        if refused is not None:
            for buffer, saved in zip(self.buffers, self.saved, strict=True):
                torch.where(refused, saved, buffer, out=buffer)

    def _can_ride(self, coefficient: Tensor | float) -> bool:
        # Beyond float32 the scale would be inf, and the step a silent zero. Where the coefficient is
        # on a device that cannot be asked without waiting; there only norms above 1e38 could do it.
        return self.rides and (isinstance(coefficient, Tensor) or coefficient > LEAST_COEFFICIENT)


LEAST_COEFFICIENT = 1.0 / torch.finfo(torch.float32).max


def _is_wide(optimizer: Optimizer) -> bool:
    # The fused kernels read the scale as float32, too coarse for float64 parameters.
    parameters = (p for group in optimizer.param_groups for p in group["params"])
    return any(parameter.dtype == torch.float64 for parameter in parameters)

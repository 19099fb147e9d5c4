"""Optimizer steps as the loop takes them, but for the guard, which refuses none."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainer.clipping import Clip, NoClip, total_norm
from trainer.data.tensors import Batch
from trainer.evaluation import Loss
from trainer.gradients import Gradients
from trainer.precision import Precision
from trainer.scaler import Scaler
from trainer.schedulers import Schedule
from trainer.transaction import Transaction


class Steps:
    """Forward, backward, measure, clip, commit, schedule.

    Args:
        model: in the mode that it is to train in.
        loss: ``(predictions, targets)`` to a scalar, or to ``(scalar, {term: scalar})``.
        optimizer: over their parameters.
        clip: a mode of `trainer.clipping`, bound if it wants to be; None for none.
        scheduler: moved after each step if it goes by steps; None for none.
        precision: "fp32", "bf16" or "fp16", which are autocast; "fp64" is up to the tensors.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        optimizer: Optimizer,
        *,
        clip: Clip | None = None,
        scheduler: Schedule | None = None,
        precision: str = "fp32",
    ) -> None:
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        device = device_of(model)
        self.scaler = Scaler.of(precision, device)
        self.more = {} if self.scaler is None else {"scaler": self.scaler}  # that has a state
        format = Precision(precision, device)
        self.gradients = Gradients(model, loss, self.parameters, format, scaler=self.scaler)
        self.found: list[Tensor] = []
        self.clip: Clip = clip or NoClip()
        self.scheduler = scheduler
        modules = [part for part in (model, loss) if isinstance(part, nn.Module)]
        self.transaction = Transaction(modules, optimizer)

    def __call__(self, *batches: Batch) -> Tensor:
        """One step on the batches, if the gradient is finite; returns the loss, shape ()."""
        loss, norm = self.measure(batches)
        if torch.isfinite(norm) and torch.isfinite(loss):
            self.commit(norm)
        return loss

    def measure(self, batches: Sequence[Batch]) -> tuple[Tensor, Tensor]:
        """Forward and backward: the loss, and the norm of the gradient before clipping; again with a
        smaller scale where float16 has overflowed."""
        while True:
            loss, _, self.found = self.gradients(batches)
            norm = total_norm(self.found, self.clip.norm_type)
            if self.scaler is None or not self.scaler.judge(loss, norm):
                return loss, norm

    def commit(self, norm: Tensor) -> None:
        """Clips the gradient that was measured, and takes the step."""
        self.transaction.commit(self.found, self.clip(self.found, norm))
        if self.scheduler is not None:
            self.scheduler.step_ended()


def device_of(model: nn.Module) -> torch.device:
    """Where the model's first parameter is; the CPU if there is none."""
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))

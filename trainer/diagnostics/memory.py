"""How many bytes a training step takes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.optim import Optimizer

from trainer.data.tensors import Batch
from trainer.diagnostics.untouched import untouched
from trainer.evaluation import Loss


def memory(
    model: nn.Module,
    loss: Loss,
    optimizer: Optimizer,
    batch: Batch,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
) -> dict[str, int]:
    """Bytes that training holds at its peak, by what holds them: ``parameters``, ``buffers``,
    ``gradients``, ``optimizer`` and ``activations``, which is what one batch's forward pass keeps for
    the backward pass. Temporary results, the libraries and the data are not in it.

    Measured by one forward pass, and by one step of the optimizer, which is taken back; for that there
    is a second copy of the parameters while it lasts.

    Args:
        model: takes the inputs of the batch.
        loss: of predictions and targets.
        optimizer: over the parameters.
        batch: as large as those of the training.
        autocast: the context of a forward pass.

    Example:
        >>> model = nn.Linear(10, 10, bias=False)
        >>> batch = torch.ones(5, 10), torch.ones(5, 10)
        >>> memory(model, nn.MSELoss(), torch.optim.Adam(model.parameters()), batch)["parameters"]
        400
    """
    held = list(model.parameters())
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    buffers = list(model.buffers())
    return {
        "parameters": _bytes([*held, *parameters]),
        "buffers": _bytes(buffers),
        "gradients": _bytes(p for p in parameters if p.requires_grad),
        "optimizer": _states(optimizer),
        "activations": _saved(model, loss, batch, autocast, [*held, *buffers, batch[0]]),
    }


def _saved(
    model: nn.Module,
    loss: Loss,
    batch: Batch,
    autocast: Callable[[], AbstractContextManager[object]],
    held: list[Tensor],
) -> int:
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    hooks = saved_tensors_hooks(keep, lambda tensor: tensor)
    with untouched(model, loss), torch.enable_grad(), hooks, autocast():
        loss(model(batch[0]), batch[1])
    return _bytes([*held, *kept]) - _bytes(held)


def _states(optimizer: Optimizer) -> int:
    """Of the optimizer's state, or of what it would be after a step, which is taken and taken back."""
    before = copy.deepcopy(optimizer.state_dict())
    if before["state"]:
        return _bytes(_tensors(before["state"]))
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    kept = [(p, p.detach().clone(), p.grad) for p in parameters]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    try:
        optimizer.step()
        return _bytes(_tensors(optimizer.state_dict()["state"]))
    finally:
        with torch.no_grad():
            for parameter, value, gradient in kept:
                parameter.copy_(value)
                parameter.grad = gradient
        optimizer.load_state_dict(before)


def _bytes(tensors: Iterable[Tensor]) -> int:
    """Of the storages that they share, each counted once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [tensor for item in items for tensor in _tensors(item)]

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

    Measured by one forward pass, and by one step of a copy of the optimizer; neither model nor
    optimizer is changed, but there is a second copy of the parameters while it lasts.

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
        "optimizer": _bytes(_tensors(_stepped(optimizer).state_dict()["state"])),
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


def _stepped(optimizer: Optimizer) -> Optimizer:
    """The optimizer, if it has a state, or a copy of it that has taken a step."""
    if optimizer.state:
        return optimizer
    twin = copy.deepcopy(optimizer)
    for group in twin.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    twin.step()
    return twin


def _bytes(tensors: Iterable[Tensor]) -> int:
    """Of the storages that they share, each counted once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [tensor for item in items for tensor in _tensors(item)]

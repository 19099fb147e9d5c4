"""Model and loss as one module, and the loss weights that members differ in as tensors of it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from inspect import get_annotations
from typing import Any, get_args

import torch
from torch import Tensor, nn

from trainer.evaluation import Loss, split_loss


class Whole(nn.Module):
    """(inputs, targets) to the loss and its terms.

    Args:
        model: takes the inputs.
        loss: takes the predictions and the targets; a module's parameters and buffers are part of it.
    """

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, inputs: Tensor, targets: Any) -> tuple[Tensor, Mapping[str, Tensor], Tensor]:
        """The loss, (), its terms, {name: ()}, and the predictions."""
        predictions = self.model(inputs)
        return *split_loss(self.loss(predictions, targets)), predictions


def differing_weights(losses: Sequence[Loss]) -> dict[str, list[float]]:
    """The numbers that losses differ in and that may be tensors, by their dotted names.

    A part declares them by an annotation: an attribute of type ``float | Tensor``.
    """
    if not all(isinstance(loss, nn.Module) for loss in losses):
        return {}
    found: dict[str, list[float]] = {}
    modules = zip(*(loss.named_modules() for loss in losses), strict=True)  # type: ignore[attr-defined]
    for named in modules:
        path = named[0][0]
        for name in stackable(type(named[0][1])):
            values = [vars(module).get(name) for _, module in named]
            if all(isinstance(v, int | float) for v in values) and len(set(values)) > 1:
                found[f"{path}.{name}".lstrip(".")] = values
    return found


def stackable(kind: type) -> list[str]:
    """The attributes that a class declares as a number or a tensor."""
    own = [
        base for base in kind.__mro__ if base.__module__.partition(".")[0] not in ("torch", "builtins")
    ]
    try:
        hints = [hint for base in own for hint in get_annotations(base, eval_str=True).items()]
    except NameError:  # imported for the type checker alone
        return []
    return [name for name, hint in hints if {float, Tensor} <= set(get_args(hint))]


def with_tensors(loss: Loss, names: Sequence[str]) -> Loss:
    """A copy of the loss in which those numbers are buffers, for `torch.func.functional_call`."""
    if not names:
        return loss
    copied = copy.deepcopy(loss)
    assert isinstance(copied, nn.Module)
    for name in names:
        path, _, attribute = name.rpartition(".")
        module = copied.get_submodule(path)
        delattr(module, attribute)
        module.register_buffer(attribute, torch.zeros(()), persistent=False)
    return copied

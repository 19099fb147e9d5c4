"""K models as one: stacked parameters and buffers, and one forward and backward pass for all."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from trainer.clipping.norms import wide_enough
from trainer.ensemble.dense import Dense
from trainer.ensemble.whole import Whole, differing_weights, with_tensors
from trainer.loop import Trainer
from trainer.shortcuts import gradients


class Stack:
    """Lays the members' parameters, gradients and buffers out as the rows of common tensors.

    Every parameter of a member stays the object that it was and becomes a view of its row, so that what
    is done to the rows is done to the member, and what a member does by itself (validate, save, go back)
    needs to know nothing of the others. Matrices come first in a row, then vectors: the two groups of an
    optimizer with weight decay are each one piece of it.

    Args:
        trainers: K of them, alike but for numbers; see `trainer.ensemble.alike`.
    """

    def __init__(self, trainers: Sequence[Trainer]) -> None:
        first = trainers[0]
        wholes = [Whole(trainer.model, trainer.loss) for trainer in trainers]
        weights = differing_weights([trainer.loss for trainer in trainers])
        self.precision = first.precision
        self.whole = Whole(first.model, with_tensors(first.loss, list(weights)))
        self.names = [name for name, _ in wholes[0].named_parameters()]
        self.names.sort(key=lambda name: wholes[0].get_parameter(name).dim() < 2)
        self.members = [[whole.get_parameter(name) for name in self.names] for whole in wholes]
        like = self.members[0][0]
        shapes = [parameter.shape for parameter in self.members[0]]
        ends = list(accumulate((shape.numel() for shape in shapes), initial=0))
        self.places = [slice(*ends) for ends in pairwise(ends)]
        rows = [torch.cat([p.detach().flatten() for p in parameters]) for parameters in self.members]
        self.values = torch.stack(rows)
        self.gradients = torch.zeros_like(self.values)
        self.parameters, self.slots = {}, []
        for index, (name, place, shape) in enumerate(zip(self.names, self.places, shapes, strict=True)):
            values = self.values[:, place].view(len(trainers), *shape)
            gradients = self.gradients[:, place].view(len(trainers), *shape)
            self.parameters[name] = values.requires_grad_()
            self.slots.append(gradients)
            for parameters, value, gradient in zip(
                self.members, values.detach(), gradients, strict=True
            ):
                parameters[index].data, parameters[index].grad = value, gradient
        self.dense = Dense.of(first.model, first.loss, self.parameters)
        self.weights = {
            f"loss.{n}": torch.tensor(v, dtype=torch.float64).to(like) for n, v in weights.items()
        }
        self.own_buffers = [list(whole.buffers()) for whole in wholes]
        self.buffers = _stacked([dict(whole.named_buffers()) for whole in wholes])
        self.saved = [torch.empty_like(buffer) for buffer in self.buffers.values()]
        self.watched = [b for b in self.buffers.values() if b.is_floating_point() and b.isfinite().all()]
        self.rows = self.gradients.unbind()
        self.ones = torch.ones(len(trainers), dtype=like.dtype, device=like.device)

    def begin(self) -> None:
        """Copies the buffers aside, which the forward pass writes to."""
        if self.saved:
            torch._foreach_copy_(self.saved, list(self.buffers.values()))

    def roll_back(self, member: int | None = None) -> None:
        """Restores the buffers of a member, or of all."""
        rows = slice(None) if member is None else member
        for buffer, saved in zip(self.buffers.values(), self.saved, strict=True):
            buffer[rows].copy_(saved[rows])

    def __call__(self, batches: Sequence[tuple[Tensor, Any]], axis: int | None) -> dict[str, Tensor]:
        """Leaves the gradients of the members' mean losses in ``gradients``.

        Args:
            batches: of one step; each for all members, or with a member axis.
            axis: None or 0, which of both.

        Returns:
            The losses, (K,), under "", and the terms by name.
        """
        sizes = [inputs.shape[0 if axis is None else 1] for inputs, _ in batches]
        means: dict[str, Tensor] = {}
        for number, ((inputs, targets), size) in enumerate(zip(batches, sizes, strict=True)):
            share = size / sum(sizes)
            losses, terms, _ = self._all(inputs, targets, axis)
            ones = self.ones.to(losses.dtype)
            ones = ones if share == 1 else ones * share
            parts = gradients(losses, list(self.parameters.values()), ones)
            if number == 0:
                torch._foreach_copy_(self.slots, parts)
            else:
                torch._foreach_add_(self.slots, parts)
            values = {"": losses.detach(), **{name: term.detach() for name, term in terms.items()}}
            if share == 1:
                means = values
            else:
                means = {name: v * share + means.get(name, 0.0) for name, v in values.items()}
        return means

    def predicted(self, inputs: Tensor, targets: Any) -> tuple[Tensor, Tensor]:
        """The members' predictions, (K, B, …), and losses, (K,), for samples that all share."""
        losses, _, predictions = self._all(inputs, targets, None)
        return predictions, losses

    def norms(self, norm_type: float) -> Tensor:
        """‖g‖_p of each member, (K,)."""
        return wide_enough(
            lambda dtype: torch.linalg.vector_norm(self.gradients, norm_type, dim=1, dtype=dtype),
            self.gradients,
        )

    def largest_buffers(self) -> Tensor | None:
        """The largest absolute entry of each member's buffers, (K,); None without any."""
        if not self.watched:
            return None
        parts = [torch.linalg.vector_norm(b.reshape(len(b), -1), torch.inf, dim=1) for b in self.watched]
        return torch.stack(parts).amax(0)

    def release(self, member: int) -> None:
        """Gives a member tensors of its own again, which share nothing with the rows."""
        for parameter in self.members[member]:
            parameter.data, parameter.grad = parameter.data.clone(), None
        for buffer in self.own_buffers[member]:
            buffer.data = buffer.data.clone()
        self.values[member].zero_()  # a row that has diverged would be measured twice in every step

    def _all(self, inputs: Tensor, targets: Any, axis: int | None) -> tuple[Tensor, Any, Tensor]:
        """Losses, terms and predictions of the members."""
        if self.dense is not None and isinstance(targets, Tensor):
            with self.precision.autocast():
                return self.dense(inputs, targets, axis)
        call = torch.vmap(self._one, (0, 0, 0, axis, axis), randomness="same")
        found: tuple[Tensor, Any, Tensor] = call(
            self.parameters, self.buffers, self.weights, inputs, targets
        )
        return found

    def _one(self, parameters: Any, buffers: Any, weights: Any, inputs: Tensor, targets: Any) -> Any:
        with self.precision.autocast():
            return functional_call(self.whole, {**parameters, **buffers, **weights}, (inputs, targets))


def _stacked(members: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors of K members by name, (K, …); each member's become views of them."""
    stacked = {name: torch.stack([tensors[name] for tensors in members]) for name in members[0]}
    for name, rows in stacked.items():
        for tensors, row in zip(members, rows, strict=True):
            tensors[name].data = row
    return stacked

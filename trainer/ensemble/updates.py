"""The updates of all members of a stack that take the step of a fused Adam, in few calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from trainer.clipping import Clipped
from trainer.ensemble.stack import Stack
from trainer.loop import Trainer
from trainer.shortcuts import count, update

Piece = tuple[dict[str, Any], slice]  # the settings of a parameter group, and its piece of a row
Views = tuple[dict[str, Any], tuple[Tensor, ...]]  # the same, as weights, gradients and moments
Call = tuple[dict[str, Any], list[list[Tensor]]]  # of several members
# Learning rate and betas of a parameter group, which schedules move.
Pace = tuple[float, tuple[float, float]]


class Updates:
    """Adam's and AdamW's update on rows: one call of torch's fused kernel for all members whose settings
    are equal, and for each the moments that its own optimizer made, which become views of rows too.

    Any other optimizer, and the first step of these, is the member's own business: `note` says so.

    Args:
        stack: of the trainers' parameters.
        trainers: its members.
    """

    def __init__(self, stack: Stack, trainers: Sequence[Trainer]) -> None:
        self.stack, self.trainers = stack, trainers
        count = len(trainers)
        self.kernels = [trainer.transaction.shortcut.kernel for trainer in trainers]
        self.pieces = [_pieces(stack, number, trainer) for number, trainer in enumerate(trainers)]
        self.moments: list[Tensor] = []
        if any(self.kernels):
            self.moments = [torch.zeros_like(stack.values), torch.zeros_like(stack.values)]
        self.steps = torch.zeros(count, device=stack.values.device)
        self.each_step = self.steps.unbind()
        self.views: list[list[Views]] = [[] for _ in trainers]
        self.adopted: list[Tensor | None] = [None] * count
        self.noted: dict[int, list[Pace]] = {}  # as it is now: a schedule moves before `apply`
        self.paces: dict[int, list[Pace]] = {}
        self.calls: dict[Any, Call] = {}
        self.coefficients = [1.0] * count
        self.scaled = False

    def adopt(self, member: int) -> None:
        """Takes over the moments that a member's optimizer has made in a step of its own."""
        pieces = self.pieces[member]
        if self.kernels[member] is None or pieces is None or self._first_moment(member) is None:
            return
        optimizer = self.trainers[member].optimizer
        for parameter, place in zip(self.stack.members[member], self.stack.places, strict=True):
            state = optimizer.state[parameter]
            for name, moments in zip(("exp_avg", "exp_avg_sq"), self.moments, strict=True):
                row = moments[member, place].view(parameter.shape)
                state[name] = row.copy_(state[name])
            self.each_step[member].copy_(state["step"])
            state["step"] = self.each_step[member]
        self.adopted[member] = self._first_moment(member)
        self.paces = {}
        tensors = (self.stack.values.detach(), self.stack.gradients, *self.moments)
        self.views[member] = [
            (settings, (*(tensor[member, place] for tensor in tensors), self.each_step[member]))
            for settings, place in pieces
        ]

    def release(self, member: int) -> None:
        """Gives a member's optimizer tensors of its own again."""
        if self.adopted[member] is None:
            return
        for state in self.trainers[member].optimizer.state.values():
            state.update({name: v.clone() for name, v in state.items() if isinstance(v, Tensor)})
        self.adopted[member] = None

    def note(self, member: int, clipped: Clipped, lr_factor: float) -> bool:
        """Whether `apply` will take this member's update; False where it has to take it itself."""
        adopted = self.adopted[member]
        if adopted is None or self._first_moment(member) is not adopted:  # it went back, say
            return False
        self.noted[member] = self._paces(member, lr_factor * clipped.lr_factor)
        coefficient = clipped.coefficient
        if coefficient is not None and coefficient != 1.0:
            self.coefficients[member] = float(coefficient)
            self.scaled = True
        return True

    def takes(self, members: Sequence[int]) -> bool:
        """Whether `apply` can take the updates of all of these."""
        return all(
            self.adopted[member] is not None and self._first_moment(member) is self.adopted[member]
            for member in members
        )

    def paces_of(self, members: Sequence[int]) -> dict[int, list[Pace]]:
        """How fast each of these goes now."""
        return {member: self._paces(member) for member in members}

    def note_all(self, paces: dict[int, list[Pace]], coefficients: Sequence[float] | None) -> None:
        """`note` for all of these, with the clip's coefficients; None for 1."""
        self.noted = paces
        if coefficients is not None:
            self.scaled = True
            for member, coefficient in zip(paces, coefficients, strict=True):
                self.coefficients[member] = coefficient

    @torch.no_grad()
    def apply(self) -> None:
        """Takes the updates noted since the last call."""
        if not self.noted:
            return
        if self.scaled:
            factors = torch.tensor(self.coefficients, dtype=torch.float64)
            self.stack.gradients.mul_(factors.to(self.stack.gradients)[:, None])
            self.coefficients, self.scaled = [1.0] * len(self.coefficients), False
        if len(self.noted) == len(self.trainers):
            self.steps.add_(1)
        else:
            count([self.each_step[member] for member in self.noted])
        for (kernel, lr, *_), (settings, tensors) in self._calls().items():
            update(kernel, tensors, settings, lr)
        self.noted = {}

    def _calls(self) -> dict[Any, Call]:
        """The tensors of the members whose settings are equal, by kernel, learning rate and so on; those
        of the last step as long as no learning rate and no beta has moved."""
        if self.noted is not self.paces and self.noted != self.paces:
            rows: dict[Any, list[Views]] = {}
            for member, paces in self.noted.items():
                for place, ((rate, betas), view) in enumerate(
                    zip(paces, self.views[member], strict=True)
                ):
                    settings = view[0]
                    numbers = (place, settings["weight_decay"], settings["eps"])
                    rows.setdefault((self.kernels[member], rate, betas, *numbers), []).append(view)
            self.calls = {
                key: (
                    alike[0][0] | {"betas": key[2]},
                    [list(column) for column in zip(*(v for _, v in alike), strict=True)],
                )
                for key, alike in rows.items()
            }
            self.paces = self.noted
        return self.calls

    def _paces(self, member: int, factor: float = 1.0) -> list[Pace]:
        return [
            (settings["lr"] * factor, tuple(settings["betas"])) for settings, _ in self.views[member]
        ]

    def _first_moment(self, member: int) -> Tensor | None:
        state = self.trainers[member].optimizer.state
        moment: Tensor | None = state[self.stack.members[member][0]].get("exp_avg")
        return moment


def _pieces(stack: Stack, number: int, trainer: Trainer) -> list[Piece] | None:
    """The groups of a member's optimizer as pieces of its row; None if one is not a single piece."""
    pieces: list[Piece] = []
    for settings in trainer.optimizer.param_groups:
        inside = {id(parameter) for parameter in settings["params"]}
        mine = [i for i, parameter in enumerate(stack.members[number]) if id(parameter) in inside]
        if not mine or mine != list(range(mine[0], mine[-1] + 1)):
            return None
        pieces.append((settings, slice(stack.places[mine[0]].start, stack.places[mine[-1]].stop)))
    return pieces

"""What the diagnostics of all members look at in a step, measured in a few operations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from trainer.clipping.norms import wide_enough
from trainer.diagnostics.activations import real
from trainer.ensemble.run import Run
from trainer.ensemble.stack import Stack


class Looking:
    """Stands in for each member's own hooks and norms in an ordinary step that is looked into.

    That is so where a stack does without `torch.vmap`, and nothing but layers and activations is looked
    at, by all. The order is `watching` around the pass, `before` and `after` the update.

    Args:
        going: the members by their rows.
        stack: of them.
    """

    def __init__(self, going: Mapping[int, Run], stack: Stack) -> None:
        self.going, self.stack = going, stack
        row, run = next(iter(going.items()))
        self.head = run.trainer.diagnostics
        place_of = dict(zip(map(id, stack.members[row]), stack.places, strict=True))
        parameters = self.head.norms.parameters
        self.possible = (
            stack.dense is not None
            and all(id(parameter) in place_of for parameter in parameters)
            and len({_wanted(run) for run in going.values()}) == 1
            and not any(_wanted(run)[2] for run in going.values())
        )
        self.places = [place_of.get(id(parameter), slice(0)) for parameter in parameters]

    @property
    def due(self) -> bool:
        """Whether the next step that is recorded will be looked into."""
        return any(run.trainer.diagnostics.looks_next for run in self.going.values())

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Takes in what leaves each layer inside."""
        self.calls: list[tuple[str, int, int]] = []
        self.activations: list[Tensor] = []
        watched = self.head.outputs.watched if self.head.activations else []
        assert self.stack.dense is not None
        layers = [(name, self.stack.dense.model.get_submodule(name)) for name, _ in watched]
        hooks = [layer.register_forward_hook(partial(self._note, name)) for name, layer in layers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @torch.no_grad()
    def before(self) -> None:
        """With the gradients as the backward pass left them; copies the weights."""
        self.earlier = self.stack.values.detach().clone()
        self.norms = [self._measured(self.stack.gradients), self._measured(self.earlier)]

    @torch.no_grad()
    def after(self, norms: Tensor) -> None:
        """With the weights as the step left them; each member then has what it would have found.

        Args:
            norms: of their gradients before and after clipping, (members that go on, 2).
        """
        updates = self._measured(self.stack.values.detach() - self.earlier)
        by_layer = torch.cat((*self.norms, updates), dim=1)
        seen = torch.cat(self.activations, dim=1) if self.activations else by_layer[:, :0]
        for place, (member, run) in enumerate(self.going.items()):
            looks = run.trainer.diagnostics
            looks.norms.with_gradient = list(range(len(self.places)))
            looks.outputs.found = self.calls
            committed = norms.new_zeros(1)
            looks.taken = {"norms": [by_layer[member]]} if looks.layers else {}
            looks.taken |= {"activations": [seen[member]], "step": [committed, norms[place]]}

    def _measured(self, rows: Tensor) -> Tensor:
        """‖·‖₂ of each parameter, (K, N)."""

        def measure(dtype: torch.dtype) -> Tensor:
            found = [torch.linalg.vector_norm(rows[:, at], dim=1, dtype=dtype) for at in self.places]
            return torch.stack(found, dim=1)

        return wide_enough(measure, rows)

    def _note(self, name: str, module: nn.Module, inputs: Any, output: Tensor) -> None:
        values = real(output.detach()).flatten(1, -2)  # (K, entries of a unit, units)
        _, entries, units = values.shape
        mean = values.mean((1, 2))
        deviation = torch.linalg.vector_norm(values - mean[:, None, None], dim=(1, 2))
        moments = torch.stack((mean, deviation), dim=1)
        self.calls.append((name, entries * units, units))
        self.activations.append(torch.cat((moments, values.abs().amax(1)), dim=1))


def _wanted(run: Run) -> tuple[bool, bool, bool, int, int]:
    """What a member looks at, layers, activations, or more, and when."""
    looks = run.trainer.diagnostics
    more = looks.parameters or looks.histograms or looks.shares or looks.norms.rows is not None
    return looks.layers, looks.activations, more, looks.every, looks.logged

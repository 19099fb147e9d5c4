"""The ordinary step of many members in a few operations: nothing is refused, and nothing asks a member's
own parts to decide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from trainer.clipping import ClipByNorm, NoClip
from trainer.clipping.norms import SLACK
from trainer.ensemble.run import Run
from trainer.ensemble.updates import Pace, Updates
from trainer.guard import Off, Rewind, Skip

Numbers = NDArray[np.float64]


class Ordinary:
    """Takes a step for all members at once where each of them would commit it.

    That is so with the guards of this repository and a clip by the norm of all gradients or none, where
    the stack takes the update, and loss, norm and buffers are within the guard's limits. What such steps
    leave behind (the guard's windows, the meter's rows) is kept here, and handed to the members before
    anything reads it.

    Args:
        going: the members by their rows.
        updates: of the stack.
    """

    def __init__(self, going: Mapping[int, Run], updates: Updates) -> None:
        self.updates = updates
        self.rows = list(going)
        self.trainers = [run.trainer for run in going.values()]
        self.possible = all(
            type(trainer.guard) in (Off, Skip, Rewind)
            and type(trainer.clip) in (NoClip, ClipByNorm)
            and not trainer.runs_ahead
            for trainer in self.trainers
        )
        self.possible &= len({trainer.clip.norm_type for trainer in self.trainers}) <= 1
        self.thresholds = np.array([getattr(t.clip, "max_norm", np.inf) for t in self.trainers])
        self.paced = not any(trainer.schedule.moves_in_epochs for trainer in self.trainers)
        self.pending: list[Numbers] = []
        self.norms = np.empty((0, 2))  # of the last of these steps, before and after clipping
        self.terms: tuple[str, ...] = ()
        # Known until `flush`, for nothing but steps like these happens before:
        self.limits: Numbers | None = None  # of loss, norm and buffers, (3, K)
        self.paces: dict[int, list[Pace]] | None = None
        self.quiet = 0  # steps until one of the limits may change

    def take(
        self, means: Mapping[str, Tensor], norms: Mapping[float, Tensor], largest: Tensor | None
    ) -> bool:
        """Notes a step and its update, if it is ordinary; False with nothing changed where it is not."""
        limits = self._limits() if self.limits is None and self.possible else self.limits
        if limits is None:
            return False
        (norm,) = norms.values()
        watched = means[""] * 0 if largest is None else largest
        seen = np.stack([self._read(means[""]), self._read(norm), self._read(watched)])
        if not (np.isfinite(seen) & (seen <= limits)).all():
            return False
        before = seen[1]
        beyond = before > self.thresholds * SLACK
        coefficients = np.where(beyond, self.thresholds / (before + 1e-6), 1.0)
        if self.paces is None or not self.paced:
            self.paces = self.updates.paces_of(self.rows)
        self.updates.note_all(self.paces, coefficients.tolist() if beyond.any() else None)
        self.terms = tuple(name for name in means if name)
        terms = [self._read(means[name]) for name in self.terms]
        self.norms = np.stack((before, before * coefficients), axis=1)
        row = [np.zeros_like(before), seen[0], *self.norms.T, *terms, seen[2]]
        self.pending.append(np.stack(row))
        if not self.paced:
            for trainer in self.trainers:
                trainer.schedule.step_ended()
        self.quiet -= 1
        if self.quiet == 0:
            self.flush()
        return True

    def flush(self) -> None:
        """Hands the members what the steps since the last time have left behind."""
        self.limits = self.paces = None
        if not self.pending:
            return
        block = np.stack(self.pending)  # (steps, columns, members)
        self.pending = []
        for place, trainer in enumerate(self.trainers):
            rows = block[:, :, place]
            trainer.meter.add_accepted(rows, self.terms)
            if isinstance(trainer.clip, ClipByNorm):
                trainer.meter.threshold = trainer.clip.max_norm
            if isinstance(trainer.guard, Skip):
                trainer.guard.settle_accepted(*rows[:, [1, 2, -1]].T.tolist())

    def _limits(self) -> Numbers | None:
        """What the guards let pass; None while one of them has a member take shorter steps, or a member
        has to take its own."""
        if not self.updates.takes(self.rows):
            return None
        guards: list[Any] = [trainer.guard for trainer in self.trainers]
        if any(guard.lr_factor != 1 for guard in guards):
            return None
        windows = [
            (guard.losses, guard.norms, guard.buffers) for guard in guards if isinstance(guard, Skip)
        ]
        self.quiet = min((w.quiet for triple in windows for w in triple), default=1)
        own = iter([[w.limit for w in triple] for triple in windows])
        limits = [next(own) if isinstance(guard, Skip) else [np.inf] * 3 for guard in guards]
        self.limits = np.array(limits).T
        return self.limits

    def _read(self, values: Tensor) -> Numbers:
        numbers: Numbers = values.double().numpy()
        return numbers if len(numbers) == len(self.rows) else numbers[self.rows]

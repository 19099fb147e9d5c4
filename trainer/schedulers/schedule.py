"""How long a run is, and a torch scheduler with the moments at which it moves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, ReduceLROnPlateau

from trainer import checks

INTERVALS = ("step", "epoch")


@dataclass(frozen=True, slots=True)
class Horizon:
    """How long a run will be: optimizer steps, epochs (a started one counts), steps per epoch."""

    steps: int
    epochs: int
    per_epoch: int

    @classmethod
    def of(
        cls, batches_per_epoch: int, accumulate: int, max_epochs: int | None, max_steps: int | None
    ) -> Self:
        """The horizon that the first of the two limits sets.

        Args:
            batches_per_epoch: of the data.
            accumulate: batches per optimizer step; an epoch's last step may have fewer.
            max_epochs: limit in epochs, or None.
            max_steps: limit in optimizer steps, or None.

        Raises:
            ValueError: if a limit is out of range or neither is given.
        """
        limits = []
        steps_per_epoch = -(-batches_per_epoch // accumulate)
        if max_epochs is not None:
            limits.append(steps_per_epoch * checks.whole("max_epochs", max_epochs, at_least=1))
        if max_steps is not None:
            limits.append(checks.whole("max_steps", max_steps, at_least=1))
        if not limits:
            raise ValueError("max_epochs must be a whole number where max_steps is null, got null")
        return cls(min(limits), -(-min(limits) // steps_per_epoch), steps_per_epoch)

    def count(self, interval: str) -> int:
        """The number of intervals in the run."""
        return self.steps if interval == "step" else self.epochs

    def part(self, first: int, last: int) -> Self:
        """The horizon of the steps from ``first`` up to ``last``, without that; of an epoch that is cut,
        each part counts its own."""
        epochs = (last - 1) // self.per_epoch - first // self.per_epoch + 1
        return type(self)(last - first, epochs, self.per_epoch)


class Schedule:
    """A torch scheduler and when it moves.

    Args:
        scheduler: any `torch.optim.lr_scheduler` object, bound to its optimizer.
        interval: "step" moves it after every optimizer step, "epoch" after every epoch.
        monitor: for plateau schedules, the recorded tag that is passed to it at the end of an epoch;
            None is val/loss.

    Raises:
        ValueError: for an unknown interval.
    """

    def __init__(
        self, scheduler: LRScheduler, interval: str = "epoch", monitor: str | None = None
    ) -> None:
        self.interval = checks.choice("interval", interval, INTERVALS)
        self.scheduler = scheduler
        self.optimizer = scheduler.optimizer
        plateau = isinstance(scheduler, ReduceLROnPlateau)
        self.monitor = monitor or ("val/loss" if plateau else None)
        # Time passes for the schedule in a refused step too; torch would warn that the optimizer has
        # not stepped yet when the very first step is the refused one.
        scheduler.optimizer._opt_called = True  # type: ignore[attr-defined]

    @property
    def monitors(self) -> list[str]:
        """The recorded tags that it reads."""
        return [] if self.monitor is None else [self.monitor]

    @property
    def moves_in_epochs(self) -> bool:
        """Whether it may move before an epoch has ended."""
        return self.interval == "step"

    @classmethod
    def constant(cls, optimizer: Optimizer) -> Self:
        """The learning rate stays what it is."""
        return cls(ConstantLR(optimizer, factor=1.0, total_iters=0))

    @classmethod
    def of(cls, scheduler: Schedule | LRScheduler | None, optimizer: Optimizer) -> Schedule:
        """Whatever of these there is, as a schedule."""
        if scheduler is None:
            return cls.constant(optimizer)
        return cls(scheduler) if isinstance(scheduler, LRScheduler) else scheduler

    def step_ended(self) -> None:
        """To be called after every optimizer step, refused or not."""
        if self.interval == "step":
            self.scheduler.step()

    def epoch_ended(self, values: Mapping[str, float]) -> None:
        """To be called after every epoch, with the last recorded value of every tag; a plateau waits
        while its tag has none."""
        if self.monitor is not None:
            value = values.get(self.monitor)
            if value is None:
                return
            # NaN compares false with everything, so a plateau would count it as an improvement.
            worst = -math.inf if getattr(self.scheduler, "mode", "min") == "max" else math.inf
            self.scheduler.step(value if math.isfinite(value) else worst)  # type: ignore[arg-type]
        elif self.interval == "epoch":
            self.scheduler.step()

    @contextmanager
    def unmoved(self) -> Iterator[None]:
        """Keeps the learning rates where the schedule has brought them, whatever is restored inside."""
        settings = moved_settings(self.optimizer)
        yield
        restore_settings(self.optimizer, settings)

    def state_dict(self) -> dict[str, Any]:
        """The torch scheduler's own state."""
        return dict(self.scheduler.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the torch scheduler's own state."""
        self.scheduler.load_state_dict(state)


# What torch's schedulers write into an optimizer's groups: one-cycle moves the momentum too, and reads
# its bounds from there.
MOVED = (
    *("lr", "initial_lr", "max_lr", "min_lr"),
    *("momentum", "betas", "max_momentum", "base_momentum"),
)


def moved_settings(optimizer: Optimizer) -> list[dict[str, Any]]:
    """The settings of every group that a schedule may move, as they are now."""
    return [{key: group[key] for key in MOVED if key in group} for group in optimizer.param_groups]


def restore_settings(optimizer: Optimizer, settings: list[dict[str, Any]]) -> None:
    """Puts them back; one that was not there then is removed."""
    for group, earlier in zip(optimizer.param_groups, settings, strict=True):
        for key in MOVED:
            group.pop(key, None)
        group.update(earlier)

"""A learning rate that is far too large for a few steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from trainer import checks
from trainer.faults.fault import NoFault
from trainer.schedulers import Horizon, Schedule


class LrSpike(NoFault):
    """α_t ← factor · α_t for ``steps`` steps from ``at`` on; then exactly what it would have been.

    Args:
        at: where it begins, as a share of the run; 0 <= at < 1.
        steps: how many optimizer steps it lasts, >= 1; the run may end before.
        factor: of the learning rate, > 0.

    Raises:
        ValueError: for an argument out of range.
    """

    def __init__(self, at: float = 0.5, steps: int = 5, factor: float = 100.0) -> None:
        self.at = checks.number("at", at, at_least=0, below=1, remedy="0.5 is the middle of the run")
        self.steps = checks.whole("steps", steps, at_least=1)
        self.factor = checks.number("factor", factor, above=0)

    def schedule(
        self, schedule: Schedule | LRScheduler, optimizer: Optimizer, horizon: Horizon
    ) -> Schedule:
        """The schedule with the spike in it."""
        inner = Schedule(schedule) if isinstance(schedule, LRScheduler) else schedule
        first = int(self.at * horizon.steps)
        return SpikedSchedule(inner, optimizer, self.factor, first, first + self.steps)


class SpikedSchedule(Schedule):
    """Another schedule, its learning rates multiplied by ``factor`` in the steps from ``first`` to
    before ``last``.

    The other moves on without noticing: while it does, the groups hold the rates it has set.

    Args:
        inner: the other schedule.
        optimizer: whose learning rates it moves.
        factor: of the learning rates.
        first: the first step with the factor, counted from 0.
        last: the first one without it again.
    """

    def __init__(
        self, inner: Schedule, optimizer: Optimizer, factor: float, first: int, last: int
    ) -> None:
        self.inner, self.optimizer = inner, optimizer
        self.factor, self.first, self.last = factor, first, last
        self.steps = 0
        self.rates = self._read()
        with self._unspiked():
            pass  # the very first step may be of the spike

    def step_ended(self) -> None:
        """Moves the other schedule, and the spike by a step."""
        with self._unspiked():
            self.inner.step_ended()
            self.steps += 1

    def epoch_ended(self, values: Mapping[str, float]) -> None:
        """Moves the other schedule."""
        with self._unspiked():
            self.inner.epoch_ended(values)

    @contextmanager
    def unmoved(self) -> Iterator[None]:
        """As that of the other schedule; the spike's rates are kept too."""
        with self.inner.unmoved():
            yield

    def state_dict(self) -> dict[str, Any]:
        """The other schedule's state, its rates, and how far the run is."""
        return {"inner": self.inner.state_dict(), "rates": list(self.rates), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores all of it; the groups' rates are the optimizer's state."""
        self.inner.load_state_dict(state["inner"])
        self.rates, self.steps = list(state["rates"]), state["steps"]

    @contextmanager
    def _unspiked(self) -> Iterator[None]:
        self._write(self.rates)
        yield
        self.rates = self._read()
        if self.first <= self.steps < self.last:
            self._write([self.factor * rate for rate in self.rates])

    def _read(self) -> list[Any]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def _write(self, rates: list[Any]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

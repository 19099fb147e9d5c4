"""Schedules one after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

from torch.optim import Optimizer

from trainer import checks
from trainer.schedulers.schedule import (
    INTERVALS,
    Horizon,
    Schedule,
    moved_settings,
    restore_settings,
)

Build = Callable[[Optimizer, Horizon], Schedule]


class Chain(Schedule):
    """Schedules one after another, each beginning anew when its turn comes, as if the run began there.

    torch's SequentialLR takes neither a plateau nor parts that move at different intervals, and parts
    that keep numbers in the optimizer's groups, as one-cycle does, overwrite each other's. Here every
    part is built in advance, on the optimizer as it is now, and the group settings it begins with are
    put in place at its turn.

    Args:
        optimizer: whose learning rate is scheduled.
        horizon: length of the run.
        builds: make each part from the optimizer and the part's own horizon.
        starts: the step each part begins with; rising, the first 0.
    """

    def __init__(
        self, optimizer: Optimizer, horizon: Horizon, builds: Sequence[Build], starts: Sequence[int]
    ) -> None:
        self.optimizer = optimizer
        self.starts = list(starts)
        self.steps = self.current = 0
        self.parts: list[Schedule] = []
        self.openings: list[list[dict[str, Any]]] = []
        untouched = moved_settings(optimizer)
        for build, (first, last) in zip(builds, pairwise([*starts, horizon.steps]), strict=True):
            restore_settings(optimizer, untouched)
            self.parts.append(build(optimizer, horizon.part(first, last)))
            self.openings.append(moved_settings(optimizer))
        restore_settings(optimizer, self.openings[0])

    @property
    def monitors(self) -> list[str]:
        """The tags that the parts read."""
        return [tag for part in self.parts for tag in part.monitors]

    @property
    def moves_in_epochs(self) -> bool:
        """A part may begin in the middle of one."""
        return True

    def step_ended(self) -> None:
        """Moves the part whose turn it is, or begins the next."""
        self.steps += 1
        if self.steps in self.starts:
            self.current += 1
            restore_settings(self.optimizer, self.openings[self.current])
        else:
            self.parts[self.current].step_ended()

    def epoch_ended(self, values: Mapping[str, float]) -> None:
        """Moves the part whose turn it is; one that has only just begun stays at its beginning."""
        if self.steps > self.starts[self.current]:
            self.parts[self.current].epoch_ended(values)

    def state_dict(self) -> dict[str, Any]:
        """How far it is, and the state of the part whose turn it is."""
        part = self.parts[self.current].state_dict()
        return {"steps": self.steps, "current": self.current, "part": part}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores all of it; what the parts keep in the optimizer's groups is the optimizer's state."""
        self.steps, self.current = state["steps"], state["current"]
        self.parts[self.current].load_state_dict(state["part"])


def sequential(
    optimizer: Optimizer,
    horizon: Horizon,
    schedules: Sequence[Build],
    lengths: Sequence[int],
    interval: str = "epoch",
) -> Schedule:
    """α_t = α⁽ⁱ⁾ at t − tᵢ: schedule i from tᵢ = lengths₀ + … + lengthsᵢ₋₁ on, each from α₀ anew.

    Args:
        optimizer: whose learning rate is scheduled.
        horizon: length of the run.
        schedules: factories such as those in this package, called with the optimizer and the part of
            the horizon that is theirs: a cosine comes down over its own length.
        lengths: intervals that each but the last is in charge; their sum is less than the run.
        interval: what ``lengths`` counts, "step" or "epoch".

    Raises:
        ValueError: for lengths that do not fit the schedules or the run, or as the schedules do.
    """
    if not (isinstance(schedules, Sequence) and schedules and all(map(callable, schedules))):
        raise ValueError(f"schedules must be a list of schedule factories, got {schedules!r}")
    count = horizon.count(checks.choice("interval", interval, INTERVALS))
    if not isinstance(lengths, Sequence) or len(lengths) != len(schedules) - 1:
        raise ValueError(
            f"lengths must be a list of {len(schedules) - 1}, one for each of schedules but the last, "
            f"got {lengths!r}"
        )
    sizes = [checks.whole(f"lengths[{i}]", n, at_least=1) for i, n in enumerate(lengths)]
    if sum(sizes) >= count:
        raise ValueError(
            f"lengths must sum to less than the run's {count} {interval}(s), got {lengths!r}; the last "
            "schedule would never begin: raise trainer.max_epochs or lower lengths"
        )
    unit = 1 if interval == "step" else horizon.per_epoch
    starts = [unit * start for start in accumulate(sizes, initial=0)]
    builds = [partial(_build, index, build) for index, build in enumerate(schedules)]
    return Chain(optimizer, horizon, builds, starts)


def _build(index: int, build: Build, optimizer: Optimizer, horizon: Horizon) -> Schedule:
    try:
        part = build(optimizer, horizon)
    except (TypeError, ValueError) as error:
        raise ValueError(f"schedules[{index}]: {error}") from error
    if not isinstance(part, Schedule):  # one of torch's takes the horizon for a number of its own
        raise ValueError(f"schedules[{index}] must make a Schedule, got {type(part).__name__}")
    return part

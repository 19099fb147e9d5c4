"""How far the jobs of a process have come, told to the one that shows them all."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from trainer.record import Record
from trainer.sweeps.workers import Tell
from trainer.tasks.train import Job

PERIOD = 0.5  # s between two messages of a process


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a job stands.

    Attributes:
        step: optimizer steps done.
        total: that it will have.
        tag: what it is judged by.
        higher: whether more of that is better.
        value: the last one; None before the first.
        best: the best one so far.
    """

    step: int
    total: int
    tag: str
    higher: bool
    value: float | None
    best: float | None


@dataclass(frozen=True, slots=True)
class Reached:
    """Where jobs stand, by number."""

    marks: dict[int, Mark]


class Pulse:
    """Tells where the jobs of a process stand, of all at once, twice a second at most.

    Nothing is told between two lines of their records, and no thread runs.

    Args:
        tell: is told `Reached`.
        numbers: of the jobs.
    """

    def __init__(self, tell: Tell, numbers: Iterable[int]) -> None:
        self.tell, self.going = tell, set(numbers)
        self.marks: dict[int, Mark] = {}
        self.round: set[int] = set()
        self.due = 0.0

    def view(self, number: int, job: Job) -> Beat:
        """A view of the record of a job; give it to `Trainer.fit`."""
        return Beat(self, number, job.trainer.record, job.horizon.steps)

    def beat(self, number: int, mark: Mark) -> None:
        """A job has come so far; jobs trained as one do so one after another at each line."""
        again = number in self.round  # before all the others have: they are not trained as one
        if again:
            self.round.clear()
        self.round.add(number)
        whole = len(self.round) >= len(self.going)
        if whole:
            self.round.clear()
        self.marks[number] = mark
        now = time.monotonic()
        if now < self.due or not (whole or again):
            return
        self.tell(Reached(self.marks))
        self.marks = {}
        # Of very many jobs more rarely, so that telling never takes more than 1 % of a run.
        self.due = now + max(PERIOD, 100 * (time.monotonic() - now))

    def ended(self, number: int) -> None:
        """The others are not to wait for this one."""
        self.going.discard(number)
        self.round.discard(number)
        self.marks.pop(number, None)


class Beat:
    """The view of one job."""

    def __init__(self, pulse: Pulse, number: int, record: Record, total: int) -> None:
        self.pulse, self.number, self.record, self.total = pulse, number, record, total

    def scalars(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """Takes note of the step; first, best and last value of every tag are in the record already."""
        tag = str(self.record.objective)
        seen = self.record.tags.get(tag, {})
        higher = tag in self.record.higher_is_better
        mark = Mark(step, self.total, tag, higher, seen.get("last"), seen.get("best"))
        self.pulse.beat(self.number, mark)

    def note(self, line: str) -> None:
        """Not here."""

    def histograms(self, step: int, values: Mapping[str, Mapping[str, Any]]) -> None:
        """Not here."""

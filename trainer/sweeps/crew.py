"""The jobs of a sweep side by side in processes: those that are alike stacked, the others one by one."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from trainer.signals import StopSignals
from trainer.sweeps.display import Display
from trainer.sweeps.jobs import keep_failure, swept_before
from trainer.sweeps.jointly import Ended, Tried, train_jointly
from trainer.sweeps.planning import Plan, Unit, planned
from trainer.sweeps.pulse import Reached
from trainer.sweeps.workers import Gone, Said, Tell, Workers, can_fork, own_threads
from trainer.tasks.train import Job

Summary = dict[str, Any]


class Crew:
    """Runs the jobs of a sweep.

    Jobs that are alike are trained as one where a trial says that it pays, in as many parts as there are
    processors; of the others each has a process to itself, one thread each and as many at a time as
    there are processors. A job that raises, exits or is killed is lost alone: those that were trained in
    one process with it are tried again, each by itself.

    On a device that no fork can share all work is done in this process, one after another.

    Args:
        ready: jobs that can be trained with others, and their folders, which exist; by number.
        folders: of all jobs.
        alone: runs a job by itself, continued if it has begun, whatever it does, and may tell `Reached`
            meanwhile; returns its summary.
        ended: called with the number and the summary of a job as soon as it has ended.
        display: is told what becomes of the jobs.
        strategy: "auto"; "stacked", as one even if that is slower; "processes", each by itself; "alone",
            likewise, but one after another with all threads.
    """

    def __init__(
        self,
        ready: dict[int, tuple[Job, Path]],
        folders: Mapping[int, Path],
        alone: Callable[[int, Tell], Summary],
        ended: Callable[[int, Summary], None],
        display: Display,
        strategy: str = "auto",
    ) -> None:
        self.ready, self.folders, self.strategy = ready, folders, strategy
        self.alone, self.ended, self.display = alone, ended, display
        self.plan = Plan(1)
        self.waiting: deque[Unit] = deque()
        self.stopping: int | None = None

    def run(self, numbers: Sequence[int]) -> int | None:
        """Runs these jobs; returns the signal that ended them before their end."""
        if can_fork():
            own_threads()
        self.plan = planned(numbers, self.ready, self.strategy)
        self.waiting.extend(self.plan.units)
        self._tell(self.plan.apart, len(numbers))
        with StopSignals() as signals, Workers() as workers:
            while workers.going or (self.waiting and not self.stopping):
                if signals.received and not self.stopping:
                    self.stopping = signals.received
                    self.display.stopping(signals.received)
                    workers.signal(signals.received)
                while self.waiting and len(workers.going) < self.plan.most and not self.stopping:
                    self._start(self.waiting.popleft(), workers)
                import matplotlib.figure  # noqa: F401  # for the report, while others work

                for unit, message in workers.heard():
                    self._hear(unit, message)
                    if not unit.left:
                        workers.release(unit)
                self.display.refresh()
        return self.stopping

    def _start(self, unit: Unit, workers: Workers) -> None:
        unit.left = set(unit.numbers)
        self.display.started(unit.numbers)
        number = unit.numbers[0] if len(unit.numbers) == 1 else None
        work = partial(self._work, unit)
        if number is not None and self.waiting:
            import matplotlib.figure  # noqa: F401  # 0.4 s: once here, and not in each process that draws
        if can_fork():
            workers.start(unit, number, work, self.plan.threads)
            return
        try:
            work(partial(self._hear, unit))
        finally:
            for used in unit.numbers:
                self.ready.pop(used, None)
        self._hear(unit, Gone(0))

    def _work(self, unit: Unit, tell: Tell) -> None:
        if len(unit.numbers) > 1:
            jobs = {number: self.ready[number] for number in unit.numbers}
            train_jointly(jobs, self.strategy == "stacked", tell)
        else:
            (number,) = unit.numbers
            tell(Ended(number, self.alone(number, tell)))

    def _hear(self, unit: Unit, message: Any) -> None:
        match message:
            case Said(number, line):
                self.display.say(number, line)
            case Reached(marks):
                self.display.reached(marks)
            case Tried():
                unit.found = message
                self._compare(unit.group)
                if message.reason:
                    self._part(unit)
            case Ended(number, summary):
                self._end(unit, number, summary)
            case Gone():
                if unit.left and not self.stopping:
                    self._lose(unit, message.cause)
                unit.left = set()

    def _end(self, unit: Unit, number: int, summary: Summary) -> None:
        """A job has come to its end, or was asked to stop."""
        if summary["status"] == "interrupted":
            if not can_fork():
                self.stopping = signal.Signals[summary["reason"]]
            elif not self.stopping and len(unit.numbers) > 1:
                return  # it is tried again when the process has gone
            elif not self.stopping:
                cause = f"its process was asked to stop by {summary['reason']}"
                summary = keep_failure(self.folders[number], cause)
        unit.left.discard(number)
        self.display.ended(number, summary)
        if summary["status"] != "interrupted":
            self.ended(number, summary)

    def _lose(self, unit: Unit, cause: str) -> None:
        """A process has gone before all its jobs had ended."""
        if len(unit.numbers) > 1:
            if unit.found is None:
                unit.found = Tried(reason=cause)
                self._compare(unit.group)
            else:
                self._tell(dict.fromkeys(sorted(unit.left), cause))
            self._part(unit)
            return
        (number,) = unit.numbers
        folder = self.folders[number]
        # It may have been through already, and drawing its picture.
        summary = swept_before(folder) or keep_failure(folder, cause)
        self.display.ended(number, summary)
        self.ended(number, summary)

    def _part(self, unit: Unit) -> None:
        """What is left of a unit is run job by job."""
        self.waiting.extend(Unit([number]) for number in sorted(unit.left))
        self.display.parted(unit.left)
        unit.left = set()

    def _compare(self, group: Sequence[Unit]) -> None:
        """Says in a line what was chosen for a group, once all its units have been tried."""
        found = [(unit, unit.found) for unit in group if unit.found is not None]
        if len(found) < len(group):
            return
        apart = [(unit, tried) for unit, tried in found if tried.reason]
        stacked = [(unit, tried) for unit, tried in found if not tried.reason]
        if stacked:
            jobs = sum(len(unit.numbers) for unit, _ in stacked)
            pace = min(tried.pace for _, tried in stacked)
            where = f" in {len(stacked)} processes" if len(stacked) > 1 else ""
            line = f"training {jobs} jobs as one{where}: a pass {pace:.3g} times as fast as one by one"
            self.display.say(None, line)
        if apart:
            numbers = sorted(number for unit, _ in apart for number in unit.numbers)
            self._tell(dict.fromkeys(numbers, apart[0][1].reason))

    def _tell(self, apart: Mapping[int, str], jobs: int = 0) -> None:
        """Which jobs run one by one, and why; a line for each reason."""
        by_reason: dict[str, list[int]] = {}
        for number, reason in apart.items():
            by_reason.setdefault(reason, []).append(number)
        for reason, numbers in by_reason.items():
            named = "all jobs" if len(numbers) == jobs else ", ".join(map(str, numbers))
            at_once = f", {self.plan.most} at a time" if self.plan.most > 1 else ""
            self.display.say(None, f"one by one{at_once}: {named} ({reason})")

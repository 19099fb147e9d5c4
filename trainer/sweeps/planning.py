"""Which jobs of a sweep are tried as one, and how many processes there are for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from trainer.ensemble import Run, chunked, grouped, paces, side_by_side
from trainer.sweeps.jointly import Tried, runs_of
from trainer.sweeps.workers import Workers, can_fork, cores, own_threads
from trainer.tasks.train import Job

STRATEGIES = ("auto", "stacked", "processes", "alone")


@dataclass(slots=True, eq=False)
class Unit:
    """What one process is started for.

    Attributes:
        numbers: of its jobs; several are to be trained as one.
        group: the units whose jobs are all alike, this one among them.
        left: of its jobs, those that have not ended.
        found: what the trial has shown, once it has.
    """

    numbers: list[int]
    group: list[Unit] = field(default_factory=list)
    left: set[int] = field(default_factory=set)
    found: Tried | None = None


@dataclass(slots=True)
class Plan:
    """Who works, and at what.

    Attributes:
        most: processes at a time.
        threads: that each of them uses.
        units: in the order in which they start.
        apart: why jobs that are ready are not trained as one with others.
    """

    most: int
    threads: int = 1
    units: list[Unit] = field(default_factory=list)
    apart: dict[int, str] = field(default_factory=dict)


def planned(numbers: Sequence[int], ready: Mapping[int, tuple[Job, Path]], strategy: str) -> Plan:
    """Alike jobs in as many parts as there are processors; of the others each by itself.

    Args:
        numbers: of all jobs.
        ready: those that can be trained with others, and their folders.
        strategy: see `trainer.sweeps.crew.Crew`.
    """
    runs = runs_of(ready)
    plan = Plan(cores() if can_fork() else 1)
    if runs:
        plan.most = side_by_side(list(runs.values()), plan.most)
    if strategy in ("processes", "alone"):
        plan.apart = dict.fromkeys(runs, f"hydra.launcher.strategy={strategy}")
    else:
        _stack(plan, runs, strategy)
    together = {number for unit in plan.units for number in unit.numbers}
    single = [number for number in numbers if number not in together]
    if not together and can_fork():
        _spread(plan, single, runs, strategy)
    plan.units += [Unit([number]) for number in single]
    return plan


def _stack(plan: Plan, runs: Mapping[int, Run], strategy: str) -> None:
    """Units of alike jobs; a single one is no stack."""
    places, members = list(runs), list(runs.values())
    groups, apart = grouped(members)
    plan.apart = {places[place]: reason for place, reason in apart.items()}
    for group in groups:
        parts = max(1, plan.most // len(groups))
        if strategy == "stacked":
            parts = max(1, min(parts, len(group) // 2))
        chunks = chunked(members, group, parts)
        units = [Unit([places[p] for p in chunk]) for chunk in chunks if len(chunk) > 1]
        for unit in units:
            unit.group = units
        plan.units += units
        reason = "no memory for two in a process" if len(chunks) > parts else "each has a processor"
        plan.apart |= {places[chunk[0]]: reason for chunk in chunks if len(chunk) == 1}


def _spread(plan: Plan, single: Sequence[int], runs: Mapping[int, Run], strategy: str) -> None:
    """One after another with all threads, where that is asked for, or faster than side by side."""
    threads = own_threads()
    fewer = strategy == "auto" and len(single) < plan.most and threads > 1
    if fewer and len(single) > 1:
        first = next((runs[number] for number in single if number in runs), None)
        with Workers() as workers:
            if first is not None:
                workers.start(None, None, lambda tell: tell(paces(first, threads)), threads)
            heard = [message for _, message in workers.until_gone()]
        fewer = any(isinstance(m, tuple) and len(single) * m[1] < m[0] for m in heard)
    if fewer or strategy == "alone":
        plan.most, plan.threads = 1, threads

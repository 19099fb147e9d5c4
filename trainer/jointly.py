"""The jobs of a sweep that can be trained as one, each with all that a job leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer import checks
from trainer.console import Console
from trainer.ensemble import Run, Together, chunked, grouped, tried
from trainer.schedulers import Horizon
from trainer.tasks import Job, show_result
from trainer.tensorboard import TensorBoard

STRATEGIES = ("auto", "stacked", "alone")
LISTED = 5


@dataclass(slots=True)
class Outcomes:
    """What became of some jobs, by their numbers.

    Attributes:
        summaries: of those that were trained as one.
        errors: what those of them raised that failed.
        apart: why the others were not.
    """

    summaries: dict[int, dict[str, Any]] = field(default_factory=dict)
    errors: dict[int, Exception] = field(default_factory=dict)
    apart: dict[int, str] = field(default_factory=dict)


def train_jointly(jobs: dict[int, tuple[Job, Path]], strategy: str = "auto") -> Outcomes:
    """Trains those jobs as one that can be, group by group, where that is faster than one by one.

    Before a group starts, its first pass is made both ways: they have to be equal, and with ``auto`` the
    quicker way is taken. One line says what was decided. Jobs that are left to train alone have been
    rehearsed only, but their parts are used up.

    Args:
        jobs: ready to fit, and their folders, which exist; by number.
        strategy: "auto"; "stacked", whatever it costs; "alone", none as one.
    """
    outcomes = Outcomes()
    if checks.choice("strategy", strategy, STRATEGIES) == "alone":
        outcomes.apart = dict.fromkeys(jobs, "hydra.launcher.strategy=alone")
        return outcomes
    numbers = list(jobs)
    runs = [Run(job.trainer, job.data, folder) for job, folder in jobs.values()]
    groups, apart = grouped(runs)
    outcomes.apart = {numbers[place]: reason for place, reason in apart.items()}
    for group in groups:
        for chunk in chunked(runs, group):
            members = [numbers[place] for place in chunk]
            reason = _trained([jobs[n] for n in members], [runs[p] for p in chunk], strategy)
            if reason:
                outcomes.apart |= dict.fromkeys(members, reason)
                continue
            for number, place in zip(members, chunk, strict=True):
                run = runs[place]
                if run.error is not None:
                    outcomes.errors[number] = run.error
                elif run.summary is not None:
                    outcomes.summaries[number] = run.summary
    return outcomes


def _trained(jobs: Sequence[tuple[Job, Path]], runs: Sequence[Run], strategy: str) -> str:
    """Trains the runs as one, or says why not."""
    if len(runs) == 1:
        return "there is no memory for two at once"
    together = Together(runs)
    trial = tried(together)
    faster = trial.alone / trial.together if trial.together else 0.0
    if trial.reason or (strategy == "auto" and faster < 1):
        together.part()
        return trial.reason or f"one by one is {1 / faster:.2g} times as fast as stacked"
    pace = f"a pass {faster:.2g} times as fast as one by one"
    print(f"training {len(runs)} jobs as one: {pace}", flush=True)
    first, _ = jobs[0]
    horizon = Horizon.of(first.data.batches_per_epoch, first.trainer.accumulate, *first.trainer.limits)
    console = Console(brief=True)
    console.start([], horizon.steps, 0, horizon.per_epoch)
    boards = [TensorBoard(folder) for _, folder in jobs]
    for run, board in zip(runs, boards, strict=True):
        board.layout()
        run.views = [board]
    runs[0].views = [console, boards[0]]
    try:
        try:
            together.fit()
        except Exception as error:
            line = f"{type(error).__name__}: {error}".splitlines()[0]
            console.note(f"the jobs go on one by one, because all at once failed: {line}")
            _finish_alone(runs)
        for (job, folder), run, board in zip(jobs, runs, boards, strict=True):
            if run.summary is not None:
                show_result(job, folder, board, console, run.summary)
    finally:
        console.close()
        for board in boards:
            board.close()
    return ""


def _finish_alone(runs: Sequence[Run]) -> None:
    for run in runs:
        if run.summary is None and run.error is None:
            try:
                run.summary = run.trainer.fit(run.data, run.folder, run.views)
            except Exception as error:
                run.error = error

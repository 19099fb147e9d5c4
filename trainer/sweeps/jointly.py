"""Jobs of a sweep that are trained as one, each with all that a job leaves behind."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, cast

from trainer.console import Console
from trainer.ensemble import Run, Together, tried
from trainer.resume import lock
from trainer.sweeps.jobs import keep_failure
from trainer.sweeps.pulse import Pulse
from trainer.sweeps.workers import Lines, Tell
from trainer.tasks.train import Job, show_result
from trainer.tensorboard import TensorBoard


@dataclass(frozen=True, slots=True)
class Tried:
    """What the first pass of some jobs has shown.

    Attributes:
        pace: how many times as fast as one by one it is to train them as one.
        reason: why they are not trained as one; "" if they are.
    """

    pace: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Ended:
    """A job is through: its number and its summary."""

    number: int
    summary: dict[str, Any]


def train_jointly(jobs: Mapping[int, tuple[Job, Path]], always: bool, tell: Tell) -> None:
    """Trains alike jobs as one where that is faster than one by one.

    Before it starts, the first pass is made both ways: they have to be equal, and the quicker way is
    taken. If that is one by one the jobs have been rehearsed only, but their parts are used up.

    Args:
        jobs: two at least, ready to fit, and their folders, which exist; by number.
        always: as one even where that is slower.
        tell: is told `Tried` once, then `Ended` of every job as soon as it has.
    """
    with ExitStack() as locked:
        try:
            for _, folder in jobs.values():
                locked.enter_context(lock(folder))
        except OSError as error:
            tell(Tried(reason=str(error)))
            return
        _train(jobs, always, tell)


def runs_of(jobs: Mapping[int, tuple[Job, Path]]) -> dict[int, Run]:
    """The jobs as members of a stack."""
    return {
        number: Run(job.trainer, job.data, folder, generators=job.generators)
        for number, (job, folder) in jobs.items()
    }


def _train(jobs: Mapping[int, tuple[Job, Path]], always: bool, tell: Tell) -> None:
    runs = runs_of(jobs)
    number_of = {id(run): number for number, run in runs.items()}
    pulse = Pulse(tell, jobs)

    def ended(run: Run) -> None:
        number = number_of[id(run)]
        pulse.ended(number)
        tell(Ended(number, _closed(*jobs[number], run, *views[number])))

    together = Together(list(runs.values()), ended)
    trial = tried(together)
    pace = trial.alone / trial.together if trial.together else 0.0
    if trial.reason or (pace < 1 and not always):
        together.part()
        tell(Tried(pace, trial.reason or f"one by one is {1 / pace:.3g} times as fast as stacked"))
        return
    tell(Tried(pace))
    views = {
        number: (
            TensorBoard(folder, job.trainer.step),
            Console(stream=cast(TextIO, Lines(tell, number)), brief=True),
        )
        for number, (job, folder) in jobs.items()
    }
    for number, run in runs.items():
        run.views = (*views[number], pulse.view(number, jobs[number][0]))
        views[number][0].layout()
        for note in jobs[number][0].notes:
            views[number][1].note(note)
    try:
        together.fit()
    except (Exception, SystemExit) as error:
        line = f"{type(error).__name__}: {error}".splitlines()[0]
        print(f"the jobs go on one by one, because all at once failed: {line}")
        for run in runs.values():
            if run.summary is None and run.error is None:
                try:
                    run.summary = run.trainer.fit(run.data, run.folder, run.views)
                except (Exception, SystemExit) as error:
                    run.error = error
                ended(run)


def _closed(job: Job, folder: Path, run: Run, board: TensorBoard, console: Console) -> dict[str, Any]:
    """What a job shows when it has ended, and its summary."""
    error = run.error
    try:
        if run.summary is not None and error is None:
            show_result(job, folder, board, console, run.summary)
            return run.summary
    except (Exception, SystemExit) as failure:
        error = failure
    finally:
        with suppress(OSError):
            board.close()
    assert error is not None
    return keep_failure(folder, error)

"""The jobs of a sweep side by side: whatever becomes of one of them is its own loss, and is told."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from test_ensemble import data, trainer
from torch import Tensor

from trainer.clipping import ClipByNorm, Clipped
from trainer.sweeps.crew import Crew
from trainer.sweeps.display import Display
from trainer.sweeps.jobs import keep_failure
from trainer.sweeps.pulse import Pulse
from trainer.sweeps.workers import Tell
from trainer.tasks.train import Job, Train

COMPLETED: dict[str, Any] = {"status": "completed", "objective": None}


class Run:
    """A crew at work, and what it shows in a log."""

    def __init__(self, folder: Path, jobs: int, strategy: str = "auto") -> None:
        self.folders = {n: folder / str(n) for n in range(jobs)}
        for path in self.folders.values():
            path.mkdir()
        self.ready: dict[int, tuple[Job, Path]] = {}
        self.summaries: dict[int, dict[str, Any]] = {}
        self.strategy = strategy

        self.stream = io.StringIO()
        self.display = Display({n: [f"seed={n}"] for n in self.folders}, self.folders, self.stream)

    def __call__(self, alone: Callable[[int, Tell], dict[str, Any]]) -> int | None:
        ended = self.summaries.__setitem__
        with self.display:
            crew = Crew(self.ready, self.folders, alone, ended, self.display, self.strategy)
            return crew.run(list(self.folders))

    def fit(self, number: int, tell: Tell) -> dict[str, Any]:
        """What a job does by itself."""
        job, folder = self.ready[number]
        try:
            return job.trainer.fit(job.data, folder, [Pulse(tell, [number]).view(number, job)])
        except (Exception, SystemExit) as error:
            return keep_failure(folder, error)

    @property
    def lines(self) -> list[str]:
        """What it has said."""
        return self.stream.getvalue().splitlines()

    @property
    def reasons(self) -> dict[int, str]:
        """Of those that failed."""
        return {n: s["reason"] for n, s in sorted(self.summaries.items()) if s["status"] == "failed"}


def test_a_job_whose_process_dies_is_named_and_the_others_end(tmp_path: Path) -> None:
    run = Run(tmp_path, 6)

    def alone(number: int, tell: Tell) -> dict[str, Any]:
        print(f"{number} works")
        if number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 4:
            os._exit(3)
        return COMPLETED

    assert run(alone) is None
    assert {n for n, summary in run.summaries.items() if summary == COMPLETED} == {0, 2, 3, 5}
    assert run.reasons == {
        1: "its process was killed by signal 9",
        4: "its process ended with exit code 3",
    }
    assert json.loads((tmp_path / "1" / "summary.json").read_text())["status"] == "failed"
    said = [f"#{n}  seed={n}  {n} works" for n in range(6)]
    assert sorted(line for line in run.lines if "works" in line) == said
    (told,) = [line for line in run.lines if "killed" in line]
    assert told.startswith("#1  seed=1  failed: its process was killed by signal 9 (")


def test_a_job_that_was_through_when_its_process_died_is_through(tmp_path: Path) -> None:
    run = Run(tmp_path, 1)
    run.ready[0] = (_job(0), run.folders[0])

    def alone(number: int, tell: Tell) -> dict[str, Any]:
        run.fit(number, tell)
        os.kill(os.getpid(), signal.SIGKILL)
        return {}

    run(alone)
    assert run.summaries[0]["status"] == "completed"
    assert run.summaries[0]["steps"] == 30


class Deadly(ClipByNorm):
    """Ends the process, or raises, at a step."""

    def __init__(self, end: Callable[[], Any]) -> None:
        super().__init__(0.3)
        self.left, self.end = 7, end

    def __call__(self, gradients: list[Tensor], norm: Tensor) -> Clipped:
        self.left -= 1
        if self.left < 0:
            self.end()
        return super().__call__(gradients, norm)


def _job(number: int, end: Callable[[], Any] | None = None) -> Job:
    built = trainer(c=0.2 * (number + 1))
    if end is not None:
        built.clip = Deadly(end)
    return Job(Train(), built, data(), {}, {})


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _raise() -> None:
    raise RuntimeError("the sensor was off")


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (_kill, "its process was killed by signal 9"),
        (_raise, "RuntimeError: the sensor was off"),
        (partial(sys.exit, 7), "it called sys.exit(7)"),
    ],
    ids=["killed", "raises", "exits"],
)
def test_of_jobs_trained_as_one_only_the_culprit_is_lost(
    tmp_path: Path, end: Callable[[], Any], reason: str
) -> None:
    run = Run(tmp_path, 4, "stacked")
    for n in run.folders:
        run.ready[n] = (_job(n, end if n == 2 else None), run.folders[n])
    assert run(run.fit) is None
    assert run.reasons == {2: reason}
    assert {run.summaries[n]["steps"] for n in (0, 1, 3)} == {30}
    assert any("training 4 jobs as one" in line for line in run.lines)


def test_a_signal_ends_all_with_a_checkpoint_each_and_starts_no_other(tmp_path: Path) -> None:
    run = Run(tmp_path, 9, "processes")
    asks = partial(os.kill, os.getpid(), signal.SIGTERM)

    def alone(number: int, tell: Tell) -> dict[str, Any]:
        built = _job(number, asks).trainer
        built.limits = (None, 10**9)
        built.clip.left = 7 if number == 0 else 10**9  # type: ignore[attr-defined]
        return built.fit(data(), run.folders[number])

    assert run(alone) == signal.SIGTERM
    assert run.summaries == {}
    begun = [path for path in run.folders.values() if (path / "metrics.jsonl").exists()]
    assert 1 <= len(begun) < 9
    for path in begun:
        assert json.loads((path / "summary.json").read_text())["status"] == "interrupted"
        assert list((path / "checkpoints").glob("*.ckpt"))

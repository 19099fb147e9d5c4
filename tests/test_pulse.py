"""How far the jobs of a process have come is told, seldom, and changes nothing of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_ensemble import data, trainer

from trainer.record import Record
from trainer.sweeps import pulse
from trainer.sweeps.jointly import Ended, train_jointly
from trainer.sweeps.pulse import Beat, Mark, Pulse, Reached
from trainer.tasks.train import Job, Train


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock; tests set its one entry."""
    now = [100.0]
    monkeypatch.setattr(pulse.time, "monotonic", lambda: now[0])
    return now


def test_all_jobs_of_a_step_are_told_of_at_once_and_twice_a_second_at_most(clock: list[float]) -> None:
    told: list[Reached] = []
    record = Record("val/loss")
    beats = [Beat(Pulse(told.append, range(3)), 0, record, 100)]
    beats += [Beat(beats[0].pulse, number, record, 100) for number in (1, 2)]
    for step in range(1, 41):  # two seconds and a half
        record.write(step, 1, {"val/loss": 10.0 - step if step < 20 else 1.0 * step})
        for beat in beats:
            beat.scalars(step, 1, {})
        clock[0] += 1 / 16
    assert [sorted(message.marks) for message in told] == [[0, 1, 2]] * 5
    assert [message.marks[2].step for message in told] == [1, 9, 17, 25, 33]
    assert told[-1].marks[0] == Mark(33, 100, "val/loss", False, 33.0, -9.0)


def test_a_job_that_ended_or_goes_on_alone_keeps_no_other_waiting(clock: list[float]) -> None:
    told: list[Reached] = []
    both = Pulse(told.append, [0, 1])
    beats = [Beat(both, number, Record("val/loss"), 100) for number in (0, 1)]
    for step in (1, 2):
        beats[0].scalars(step, 1, {})  # without the other
        clock[0] += 1.0
    (message,) = told
    assert message.marks == {0: Mark(2, 100, "val/loss", False, None, None)}
    both.ended(0)
    beats[1].scalars(3, 1, {})
    assert [message.marks.keys() for message in told[1:]] == [{1}]


def test_jobs_trained_as_one_tell_of_each_and_are_what_they_are_unwatched(tmp_path: Path) -> None:
    told: list[Any] = []
    jobs = {}
    for number in range(2):
        (tmp_path / str(number)).mkdir()
        job = Job(Train(), trainer(c=0.2 * (number + 1)), data(), {}, {})
        jobs[number] = (job, tmp_path / str(number))
    train_jointly(jobs, True, told.append)
    first = next(message for message in told if isinstance(message, Reached))
    assert sorted(first.marks) == [0, 1]
    assert {mark.total for mark in first.marks.values()} == {30}
    assert sum(isinstance(message, Ended) for message in told) == 2
    records = [(tmp_path / str(number) / "metrics.jsonl").read_bytes() for number in range(2)]
    jobs = {n: (Job(Train(), trainer(c=0.2 * (n + 1)), data(), {}, {}), f) for n, (_, f) in jobs.items()}
    for _, folder in jobs.values():
        (folder / "metrics.jsonl").unlink()
    with pytest.MonkeyPatch.context() as unwatched:
        unwatched.setattr(Beat, "scalars", lambda *arguments: None)
        train_jointly(jobs, True, told.append)
    assert records == [(tmp_path / str(number) / "metrics.jsonl").read_bytes() for number in range(2)]

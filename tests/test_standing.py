"""Where a sweep stands: each job is counted once, and what is left is told by what is done."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from trainer.sweeps import standing
from trainer.sweeps.pulse import Mark
from trainer.sweeps.standing import Standing


def of(jobs: int) -> Standing:
    typed = {n: ["model=mlp", f"clip.max_norm={n}", "seed=0"] for n in range(jobs)}
    return Standing(typed, {n: Path(str(n)) for n in range(jobs)})


def summary(status: str, value: float | None = None, higher: bool = False) -> dict[str, Any]:
    return {
        "status": status,
        "objective": {"tag": "val/loss", "value": value, "higher_is_better": higher},
    }


def mark(step: int, value: float | None = None, higher: bool = False) -> Mark:
    return Mark(step, 100, "val/loss", higher, value, value)


def test_a_job_is_known_by_what_it_does_not_share_with_all_others() -> None:
    assert of(3).differs(2) == "clip.max_norm=2"
    assert of(3).keys == {"clip.max_norm": 1}
    assert of(1).differs(0) == ""


def test_every_job_is_counted_once_whatever_becomes_of_it() -> None:
    jobs = of(10)
    jobs.start(range(6))
    jobs.reach({0: mark(50), 9: mark(50)})  # of a job that does not run nothing is heard
    jobs.wait([4, 5])
    jobs.end(0, summary("completed", 1.0))
    jobs.end(1, summary("failed"))
    jobs.end(2, summary("diverged", math.inf))
    jobs.end(9, summary("completed", 1.0), kept=True)
    counts = {"completed": 2, "diverged": 1, "failed": 1, "running": 1, "waiting": 5}
    assert jobs.counts == counts
    assert sum(counts.values()) == 10


def test_the_time_left_is_that_of_the_work_left_and_what_was_kept_is_no_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    monkeypatch.setattr(standing.time, "monotonic", lambda: now[0])
    jobs = of(5)
    jobs.end(4, summary("completed", 1.0), kept=True)
    jobs.start([0, 1])
    assert jobs.left is None
    now[0] += 30.0
    jobs.end(0, summary("completed", 1.0))
    jobs.reach({1: mark(50)})
    assert jobs.share == pytest.approx(1.5 / 4)
    assert jobs.left == pytest.approx(30 * 2.5 / 1.5)
    for number in (1, 2, 3):
        jobs.end(number, summary("failed"))
    assert (jobs.share, jobs.left) == (1.0, 0.0)


@pytest.mark.parametrize("higher", [False, True])
def test_the_leader_is_the_best_whether_it_runs_or_has_ended(higher: bool) -> None:
    sign = -1 if higher else 1
    jobs = of(6)
    assert jobs.leader() is None
    jobs.start(range(5))
    jobs.reach({0: mark(1, math.nan, higher), 1: mark(1, sign * 0.4, higher), 2: mark(1, None, higher)})
    assert jobs.leader() == (1, sign * 0.4)
    jobs.end(3, summary("completed", sign * 0.3, higher))
    jobs.end(4, summary("diverged", sign * math.inf, higher))
    assert jobs.leader() == (3, sign * 0.3)
    assert next(iter(jobs.ranked()))[0] == 1
    assert [number for number, _ in jobs.best()] == [3]

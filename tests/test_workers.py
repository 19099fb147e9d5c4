"""Work in processes of its own: what is said arrives, a death is told of, nothing is left behind."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.sweeps.workers import Gone, Said, Tell, Work, Workers, own_threads


def heard(*works: Work) -> list[tuple[Any, Any]]:
    with Workers() as workers:
        for key, work in enumerate(works):
            workers.start(key, key, work)
        return list(workers.until_gone())


def test_what_a_process_says_and_prints_arrives_in_its_order_and_its_end_last() -> None:
    def work(tell: Tell) -> None:
        tell({"pid": os.getpid()})
        print("two\nlines", end="")
        tell(torch.get_num_threads())

    (_, first), *rest = heard(work)
    assert first["pid"] != os.getpid()
    assert rest == [(0, Said(0, "two")), (0, 1), (0, Said(0, "lines")), (0, Gone(0))]


@pytest.mark.parametrize(
    ("work", "cause"),
    [
        (lambda tell: os.kill(os.getpid(), signal.SIGKILL), "its process was killed by signal 9"),
        (lambda tell: os._exit(3), "its process ended with exit code 3"),
        (lambda tell: sys.exit(4), "its process ended with exit code 4"),
    ],
)
def test_a_death_is_told_of_with_its_cause(work: Work, cause: str) -> None:
    assert [m.cause for _, m in heard(work) if isinstance(m, Gone)] == [cause]


def test_a_process_answers_to_signals_as_though_it_had_been_started_by_itself() -> None:
    with Workers() as workers:
        workers.start("", None, lambda tell: (tell("ready"), time.sleep(60)))  # type: ignore[arg-type]
        found: list[Any] = []
        while not found:
            found += workers.heard()
        workers.signal(signal.SIGTERM)
        assert [m for _, m in workers.until_gone()] == [Gone(-signal.SIGTERM)]


def test_nothing_outlives_the_context() -> None:
    with Workers() as workers:
        workers.start("", None, lambda tell: time.sleep(60))
        (worker,) = workers.going
    assert worker.process.exitcode == -signal.SIGKILL


def test_nothing_outlives_a_parent_that_is_killed(tmp_path: Path) -> None:
    def parent(tell: Tell) -> None:
        with Workers() as workers:
            workers.start("", None, lambda told: (told(os.getpid()), time.sleep(60)))  # type: ignore[arg-type]
            while not (found := workers.heard()):
                pass
            tell(found[0][1])
            os.kill(os.getpid(), signal.SIGKILL)

    (_, orphan), (_, end) = heard(parent)
    assert end == Gone(-signal.SIGKILL)
    for _ in range(500):
        if not _runs(orphan):
            return
        time.sleep(0.01)
    raise AssertionError(f"{orphan} is still there")


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_this_process_keeps_to_one_thread_from_when_it_was_asked_how_many_there_are() -> None:
    assert own_threads() == own_threads() >= 1
    assert torch.get_num_threads() == 1

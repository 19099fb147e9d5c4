"""A sweep as it is seen: what fails is told at once, the table is above nothing and gone in the end."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from test_console import Terminal
from test_standing import mark, summary

from trainer.sweeps import display
from trainer.sweeps.display import Display

FAILED = summary("failed") | {"reason": "RuntimeError: the sensor was off", "objective": None}
DIVERGED = summary("diverged") | {"reason": "non-finite loss"}


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "20"}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The clock; tests set its one entry."""
    now = [1000.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    return now


def shown(stream: io.StringIO | None, jobs: int = 3) -> Display:
    typed = {n: ["model=mlp", f"clip.max_norm={n}"] for n in range(jobs)}
    return Display(typed, {n: Path("sweep", str(n)) for n in range(jobs)}, stream)


def plain(text: str) -> list[str]:
    """What was written, line by line, those that were wiped out among them."""
    return re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text))


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()], ids=["terminal", "log"])
def test_a_job_that_fails_is_told_at_once_with_what_it_differs_in_its_cause_and_where_to_look(
    stream: io.StringIO, clock: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sweep/1").mkdir(parents=True)
    Path("sweep/1/traceback.txt").touch()
    with shown(stream) as sweep:
        sweep.started([0, 1, 2])
        for number, ended in enumerate((DIVERGED, FAILED)):
            clock[0] += 1.0
            sweep.ended(number, ended)
            text = plain(stream.getvalue())
            told = [line for line in text if line.startswith(f"#{number}  clip.max_norm={number}  ")]
            where = "sweep/1/traceback.txt" if number else "sweep/0"
            assert [line.split("  ", 2)[2] for line in told] == [
                f"{ended['status']}: {ended['reason']} ({where})"
            ]


def test_a_log_has_a_line_for_each_end_and_one_now_and_then(clock: list[float]) -> None:
    stream = io.StringIO()
    with shown(stream, 11) as sweep:
        sweep.ended(10, summary("completed", 0.1), kept=True)
        sweep.started([0])
        for step in range(60):  # half a minute
            clock[0] += 0.5
            sweep.reached({0: mark(step, 0.5)})
        sweep.say(0, "\t   step 7: update refused")
        sweep.ended(0, summary("completed", 0.5) | {"seconds": 30.0})
    text = stream.getvalue()
    assert "\x1b" not in text
    first, *progress, said, ended = text.splitlines()
    assert first == "#10  clip.max_norm=10  done before, and kept"
    assert [line.split()[0] for line in progress] == ["1", "3", "5"]  # percent, each ten seconds
    assert said == "#0   clip.max_norm=0   step 7: update refused"
    assert ended == "#0   clip.max_norm=0   completed  val/loss 0.5000  30.0 s"


def test_a_terminal_shows_one_table_which_is_gone_in_the_end(clock: list[float]) -> None:
    stream = Terminal()
    with shown(stream) as sweep:
        sweep.started([0, 1])
        for step in range(100):
            clock[0] += 0.05
            sweep.reached({0: mark(step, 0.5)})
        sweep.ended(0, summary("completed", 0.5) | {"seconds": 5.0})
        during = stream.getvalue()
    assert 15 <= during.count("3 jobs:") <= 22  # five seconds
    assert not any(line.startswith("#0") for line in plain(during))  # the table says it
    assert stream.getvalue().count("\x1b[?25l") == stream.getvalue().count("\x1b[?25h") == 1
    assert stream.getvalue().endswith("\x1b[2K")  # the last thing is that its lines are wiped out


def test_many_lines_at_once_draw_the_table_once(clock: list[float]) -> None:
    stream = Terminal()
    with shown(stream, 500) as sweep:
        sweep.started(list(range(500)))
        drawn = stream.getvalue().count("500 jobs:")
        for number in range(500):
            sweep.ended(number, FAILED)
        clock[0] += 1.0
        sweep.refresh()
        assert stream.getvalue().count("500 jobs:") <= drawn + 2
    assert sum(line.startswith("#") for line in plain(stream.getvalue())) == 500


def test_what_is_printed_meanwhile_comes_above_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    with shown(None) as sweep:
        sweep.started([0])
        print("a callback says something")
        text = plain(stream.getvalue())
        said = text.index("a callback says something")
        assert [line[:7] for line in text[said + 1 :] if "jobs:" in line] == ["3 jobs:"]
    assert sys.stdout is stream


def test_the_terminal_is_itself_again_after_an_error() -> None:
    stream = Terminal()
    with pytest.raises(KeyboardInterrupt), shown(stream):
        raise KeyboardInterrupt
    assert stream.getvalue().count("\x1b[?25h") == 1


def test_a_sweep_that_was_interrupted_says_how_it_goes_on(tmp_path: Path) -> None:
    stream: Any = io.StringIO()
    with shown(stream) as sweep:
        sweep.ended(0, summary("completed", 1.0) | {"seconds": 1.0})
        sweep.started([1])
        sweep.stopping(15)
        sweep.ended(1, summary("interrupted") | {"reason": "SIGTERM"})
    sweep.stopped(tmp_path / "my sweep")
    told = stream.getvalue().splitlines()[-1]
    assert told.startswith("interrupted by SIGTERM: 1 of 3 jobs are done; python train.py resume='")
    assert told.endswith("my sweep' goes on")

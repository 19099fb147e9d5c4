"""The table of a sweep fits every terminal, shows the best, and says what it does not show."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from test_standing import mark, summary

from trainer.sweeps.overview import in_a_line, overview
from trainer.sweeps.standing import Standing


def sweep(jobs: int, running: int, completed: int) -> Standing:
    """Jobs of which the last is the best: those that have ended come first, then those that run."""
    typed = {n: [f"clip.max_norm={n}", f"data.name=模型{n}"] for n in range(jobs)}
    found = Standing(typed, {n: Path(str(n)) for n in range(jobs)})
    for number in range(completed):
        found.end(number, summary("completed", 1 / (number + 1)) | {"seconds": 1.5})
    found.start(range(completed, completed + running))
    found.reach({n: mark(50, 1 / (n + 1)) for n in range(completed, completed + running)})
    return found


@pytest.mark.parametrize("width", [20, 60, 200])
@pytest.mark.parametrize("height", [1, 2, 3, 4, 5, 6, 8, 12, 24, 60])
@pytest.mark.parametrize("jobs", [(1, 1, 0), (1, 0, 1), (64, 64, 0), (64, 2, 30), (1000, 500, 400)])
def test_it_fits_and_every_running_job_is_shown_or_counted(
    width: int, height: int, jobs: tuple[int, int, int]
) -> None:
    lines = overview(sweep(*jobs), width, height).plain.split("\n")
    assert len(lines) <= max(1, height - 1)
    assert max(map(cell_len, lines)) <= width
    if height >= 8 and width >= 60:
        shown = sum("50/100" in line for line in lines)
        hidden = [int(found[1]) for line in lines if (found := re.search(r"(\d+) more running", line))]
        assert shown + sum(hidden) == jobs[1]


def test_of_too_many_the_best_are_shown_and_of_few_all_by_number() -> None:
    lines = overview(sweep(1000, 500, 400), 100, 24).plain.split("\n")
    numbers = [int(line.split()[0]) for line in lines if "50/100" in line]
    assert numbers == sorted(numbers, reverse=True)
    assert numbers[0] == 899
    ended = [int(line.split()[0]) for line in lines if "1.5 s" in line]
    assert ended == [399, 398, 397, 396, 395]
    assert "the best of 400 completed" in "\n".join(lines)
    few = overview(sweep(3, 3, 0), 100, 24).plain.split("\n")
    assert [int(line.split()[0]) for line in few if "50/100" in line] == [0, 1, 2]


def test_a_row_says_how_far_a_job_is_what_it_has_reached_and_what_it_differs_in() -> None:
    found = sweep(3, 1, 1)
    found.start([2])
    text = overview(found, 100, 24, ascii_only=True).plain
    assert re.search(r"^3 jobs:  1 completed  2 running$", text, re.MULTILINE)
    assert re.search(r"^ job +progress +val/loss +best +clip.max_norm +data.name *$", text, re.MULTILINE)
    assert re.search(r"^   1 +######------ 50/100 +0.5000 +0.5000 +1 +模型1 *$", text, re.MULTILINE)
    assert re.search(r"^   2 +starts +2 +模型2 *$", text, re.MULTILINE)
    assert re.search(r"^   0 +1.5 s +1.000 +0 +模型0 *$", text, re.MULTILINE)
    assert text.replace("模型", "").isascii()


def test_keys_are_named_in_short_where_there_is_no_room() -> None:
    assert "  clip.max_norm  data.name" in overview(sweep(3, 1, 1), 80, 24).plain
    assert "  max_norm  name" in overview(sweep(3, 1, 1), 79, 24).plain


def test_a_log_gets_the_same_in_a_line() -> None:
    found = sweep(4, 1, 1)
    found.start([2])
    line = in_a_line(found)
    expected = (
        r" 37 %  1 completed, 2 running, 1 waiting  0:00, about 0:00 left  best val/loss 0.5000: #1 "
    )
    assert re.fullmatch(expected + "clip.max_norm=1 data.name=模型1", line)
    assert in_a_line(sweep(2, 0, 0)) == "  0 %  2 waiting  0:00"


def test_a_sweep_that_was_asked_to_stop_says_so() -> None:
    found: Any = sweep(4, 2, 1)
    found.signal = 2
    assert "asked to stop" in overview(found, 100, 24).plain
    assert "left" not in overview(found, 100, 24).plain

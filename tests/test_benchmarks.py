"""The page of benchmarks, from made-up timings; and the README quotes the page that is there."""

from __future__ import annotations

import pytest

from benchmarks.__main__ import BEGIN, END, README, RESULTS, page, quoted, with_quote
from benchmarks.step import CONTENDERS, part
from benchmarks.tables import Part, timed
from benchmarks.timing import Bar, Entry, NotInstalled, attempt, interleave


def entries(**seconds: float) -> list[Entry]:
    """Contenders that did ten units in so many seconds, twice."""
    return [Entry(name, lambda _: 0.0, 10, [value, value]) for name, value in seconds.items()]


def test_a_bar_is_held_against_the_median_of_the_ratios_of_a_round() -> None:
    ours, theirs = entries(ours=1.0, theirs=2.0)
    theirs.seconds = [2.0, 30.0, 2.2]
    ours.seconds = [1.0, 10.0, 2.0]
    found = timed("a step", [ours, theirs], "ms", 1e3, [Bar("theirs / ours", 2.0)])
    assert found.bars == [["theirs / ours", "≥ 2x", "2.00x", "pass"]]
    assert found.rows[1] == ["theirs", "220 (200 to 3000)", "2.00x"]


def test_who_is_not_installed_has_a_row_that_says_so_and_fails_no_bar() -> None:
    def peer(_: int) -> float:
        raise NotInstalled("not installed")

    absent = Entry("peer", peer)
    present = Entry("ours", lambda _: 1.0)
    interleave([present, absent], 2)
    found = timed("a step", [present, absent], "s", 1, [Bar("peer / ours", 1.0)])
    assert found.rows[1] == ["peer", "not installed", "-"]
    assert found.bars == [["peer / ours", "≥ 1x", "not installed", "-"]]
    assert not found.crashed


def test_a_contender_that_crashes_is_said_to(capsys: pytest.CaptureFixture[str]) -> None:
    broken = Entry("broken", lambda _: 1 / 0)
    assert attempt(broken, 1) is None
    assert "ZeroDivisionError" in capsys.readouterr().err
    found = timed("a step", [broken], "s", 1)
    assert found.crashed
    assert found.rows[0][1].startswith("crashed: ZeroDivisionError")


def test_steps_have_a_row_for_every_contender_beside_ours() -> None:
    seconds = dict.fromkeys(CONTENDERS, 2.0) | {"trimtab": 1.0, "tuned": 0.5}
    found = part({"mlp": entries(**seconds), "lstm": entries(**seconds)})
    assert found.header == ["loop", "MLP problem", "LSTM text"]
    assert [row[0] for row in found.rows] == list(CONTENDERS)
    assert found.rows[0] == ["trimtab", "10", "10"]
    assert found.rows[1] == ["tuned", "20 (0.50x)", "20 (0.50x)"]
    assert found.bars[0] == ["mlp: trimtab / tuned", "≥ 0.95x", "0.50x", "FAIL"]
    assert found.bars[-1] == ["lstm: trimtab / ignite", "≥ 1x", "2.00x", "pass"]


def test_the_page_counts_the_bars_and_marks_what_the_readme_quotes() -> None:
    judged = [["a / b", "≥ 1x", "2.00x", "pass"], ["c / d", "≥ 1x", "not installed", "-"]]
    first = Part("Steps", ["loop", "job"], [["ours", "10"]], judged)
    text = page([first, Part("Another", ["a"], [["b"]])], "today")
    told = "`python -m benchmarks`: today. 1 of 1 bars are met."
    assert quoted(text) == f"\n| loop | job |\n| --- | ---: |\n| ours | 10 |\n\n{told}\n"
    assert "## Another" in text
    with pytest.raises(ValueError, match="there must be"):
        quoted("no marks")


@pytest.mark.parametrize("old", ["", "\n", "\nold\n"])
def test_a_quote_replaces_what_is_between_the_marks_and_nothing_else(old: str) -> None:
    readme = f"above\n\n{BEGIN}{old}{END}\n\nbelow\n"
    assert with_quote(readme, f"x\n{BEGIN}\nnew\n{END}\ny") == (
        f"above\n\n{BEGIN}\nnew\n{END}\n\nbelow\n"
    )


def test_the_readme_quotes_the_results_that_are_there() -> None:
    assert quoted(README.read_text(encoding="utf-8")) == quoted(RESULTS.read_text(encoding="utf-8"))

"""What the terminal shows: piped as plain lines, on a terminal as a bar, and the closing table."""

import io
import math
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from trainer import console
from trainer.console import Console

SUMMARY: dict[str, Any] = {
    "status": "completed",
    "steps": 1840,
    "epochs": 40,
    "seconds": 12.94,
    "steps_per_second": 142.2,
    "objective": {"tag": "val/psnr", "value": 17.4},
    "metrics": {
        "train/loss": {"first": 0.1231, "best": 0.01712, "last": 0.01823},
        "val/psnr": {"first": 12.03, "best": 17.41, "last": 17.31},
        "grad/clipped": {"first": 0.4567, "best": 0.0, "last": 0.0},
    },
    "grad_norm": {"median": 0.8312, "p99": 2.134, "max": 14.25},
    "clip": {
        "mode": "ClipByNorm",
        "max_norm": 1.5,
        "fraction": 0.12,
        "suggested_max_norm": 0.912,
        "verdict": "The threshold fits.",
    },
    "guard": {"skipped": 0, "rewound": 0, "causes": {"non-finite loss": 0}},
    "seed": 7,
    "versions": {"torch": "2.13"},
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR", "COLUMNS", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The console's clock; tests set its one entry."""
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def run(stream: io.StringIO, clock: list[float], steps: int, seconds: float) -> Console:
    shown = Console(stream=stream)
    shown.start(["a header"], total_steps=steps, done_steps=0, steps_per_epoch=10)
    for step in range(1, steps + 1):
        clock[0] += seconds / steps
        values = {"train/loss": 0.5, "grad/norm": 0.83, "grad/clipped": 0.12, "lr": 6.1e-4}
        shown.scalars(step, (step - 1) // 10 + 1, values)
    return shown


def finished(summary: dict[str, Any], folder: Path | None = None) -> str:
    stream = io.StringIO()
    Console(stream=stream).finish(summary, folder)
    return stream.getvalue()


def test_piped_output_is_a_few_plain_lines(clock: list[float]) -> None:
    stream = io.StringIO()
    run(stream, clock, steps=2000, seconds=20.0).close()
    text = stream.getvalue()
    assert "\x1b" not in text
    assert "\r" not in text
    lines = [line for line in text.splitlines() if line.startswith("step ")]
    # The first, one after each 5 of the 20 seconds (at 5.01, 10.02, 15.03) and the last.
    assert len(lines) == 5
    assert lines[0].startswith("step 1/2000  epoch 1/200")
    expected = "loss 0.500  grad norm 0.830  clipped 12 %  lr 6.1e-04  100 steps/s"
    assert lines[-1] == f"step 2000/2000  epoch 200/200  {expected}"


def test_a_forced_colour_pipe_still_gets_no_bar(
    clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    stream = io.StringIO()
    run(stream, clock, steps=100, seconds=1.0).close()
    assert "\x1b[2K" not in stream.getvalue()
    assert "\x1b[?25l" not in stream.getvalue()


def test_values_last_seen_are_kept(clock: list[float]) -> None:
    stream = io.StringIO()
    shown = run(stream, clock, steps=10, seconds=1.0)
    shown.scalars(10, 1, {"val/loss": 0.4, "val/psnr": 17.31})
    shown.close()
    last = stream.getvalue().splitlines()[-1]
    assert "loss 0.500" in last
    assert "val/psnr 17.31" in last
    assert "val/loss" not in last


def test_a_rewind_does_not_break_the_rate(clock: list[float]) -> None:
    stream = io.StringIO()
    shown = run(stream, clock, steps=100, seconds=10.0)
    for step in (40, 50):
        clock[0] += 10.0
        shown.scalars(step, 1, {"train/loss": math.nan})
    line = stream.getvalue().splitlines()[-1]
    assert line.startswith("step 50/100")
    assert "loss \u2013" in line
    assert line.endswith("1.00 steps/s")


def test_the_bar_refreshes_at_most_eight_times_a_second(clock: list[float]) -> None:
    stream = Terminal()
    run(stream, clock, steps=2000, seconds=2.0).close()
    refreshes = stream.getvalue().count("epoch ")
    assert 10 <= refreshes <= 20
    assert "100 %" in stream.getvalue()


def test_a_slow_terminal_gets_fewer_refreshes(clock: list[float]) -> None:
    class Slow(Terminal):
        def flush(self) -> None:
            clock[0] += 0.01

    stream = Slow()
    run(stream, clock, steps=2000, seconds=2.0).close()
    assert stream.getvalue().count("epoch ") <= 6


def test_the_bar_fits_a_narrow_terminal(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    stream = Terminal()
    run(stream, clock, steps=20, seconds=2.0).close()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    lines = re.split(r"[\r\n]", plain)
    assert max(len(line) for line in lines) <= 60


def test_notes_appear_above_the_bar_and_brackets_survive(clock: list[float]) -> None:
    stream = Terminal()
    shown = run(stream, clock, steps=20, seconds=2.0)
    shown.note("step 3: update refused [1 of 10]")
    shown.close()
    text = stream.getvalue()
    assert "step 3: update refused [1 of 10]" in text
    assert text.rindex("update refused") < text.rindex("epoch ")
    assert text.count("\x1b[?25l") == text.count("\x1b[?25h") == 1


def test_every_figure_of_the_summary_is_in_the_table() -> None:
    text = finished(SUMMARY)
    expected = "0.1231 0.01712 0.01823 12.03 17.41 17.31 0.8312 2.134 14.25 ClipByNorm 1.5 0.912"
    expected += " 1840 40 12.94 142.2"
    for figure in expected.split():
        assert re.search(rf"(?<![\d.]){re.escape(figure)}(?![\d.]*\d)", text), figure
    assert "objective 17.40" in text
    assert "12 % of steps" in text
    assert "The threshold fits." in text
    assert "seed 7" in text
    assert text.index("val/psnr") < text.index("train/loss")
    assert "guard" not in text
    assert "0.4567" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert all(line == line.rstrip() for line in text.splitlines())


def test_the_guard_is_mentioned_once_it_acted() -> None:
    causes = {"non-finite loss": 2, "norm spike": 0}
    text = finished(SUMMARY | {"guard": {"skipped": 2, "rewound": 1, "causes": causes}})
    assert "2 updates skipped, 1 rewind (non-finite loss 2)" in text


def test_what_is_missing_or_not_finite_is_a_dash() -> None:
    metrics = {"val/psnr": {"first": 12.03, "best": None, "last": math.nan}}
    clip = {"mode": "NoClip", "max_norm": None, "fraction": None, "suggested_max_norm": None}
    text = finished({"status": "failed", "metrics": metrics, "clip": clip, "seconds": math.inf})
    assert re.search(r"val/psnr +12\.03 +\u2013 +\u2013", text)
    assert "NoClip bound on \u2013 of steps" in text
    assert "failed: \u2013 steps, \u2013 epochs, \u2013 s" in text
    assert "nan" not in text
    assert "None" not in text
    assert "ended" in finished({})


def test_the_command_can_be_pasted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "outputs" / ("a run with spaces " + "x" * 80)
    folder.mkdir(parents=True)
    (folder / "curves.png").touch()
    lines = finished(SUMMARY, folder).splitlines()
    words = shlex.split(lines[-1])
    assert words == ["tensorboard", "--logdir", str(folder.relative_to(tmp_path))]
    assert shlex.split(lines[-2]) == ["curves", str((folder / "curves.png").relative_to(tmp_path))]


def test_a_folder_elsewhere_is_named_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    elsewhere = tmp_path.parent / "elsewhere"
    for folder in (elsewhere, tmp_path):
        text = finished(SUMMARY, folder)
        assert text.splitlines()[-1] == f"tensorboard --logdir {shlex.quote(str(folder))}"
        assert "curves " not in text


def test_of_a_brief_run_only_notes_are_shown(clock: list[float]) -> None:
    stream = io.StringIO()
    shown = Console(stream=stream, brief=True)
    shown.start(["a header"], 10, 0, 5)
    shown.scalars(1, 1, {"train/loss": 0.5})
    shown.note("step 1: update refused")
    shown.finish(SUMMARY, Path("somewhere"))
    assert stream.getvalue() == "step 1: update refused\n"


def test_an_ascii_log_does_not_end_the_run() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    Console(stream=stream).finish(SUMMARY | {"seconds": None}, None)
    stream.flush()
    assert b"? s" in raw.getvalue()


def test_a_resumed_run_counts_its_rate_from_where_it_resumed(clock: list[float]) -> None:
    stream = io.StringIO()
    shown = Console(stream=stream)
    shown.start([], total_steps=1000, done_steps=900, steps_per_epoch=100)
    clock[0] += 10.0
    shown.scalars(950, 10, {"train/loss": 0.5})
    assert "epoch 10/10" in stream.getvalue()
    assert stream.getvalue().splitlines()[-1].endswith("5.00 steps/s")

"""The record: strict JSON, a line a step; first, best and last; the objective; no clock in it."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from full_disk import file_limit

from trainer import checkpoint
from trainer.data.tensors import TensorData
from trainer.metrics import Metric, accuracy, psnr
from trainer.record import Record, check_tag, finite, recorded_tags, write_summary

METRICS = {"psnr": Metric(psnr, True), "error": Metric(psnr, False), "acc": Metric(accuracy, True)}
BAD = [math.nan, math.inf, -math.inf]


def data(metrics: dict[str, Metric], val_samples: int = 4) -> TensorData:
    x, y = torch.rand(8, 2), torch.rand(8, 1)
    val = x[:val_samples], y[:val_samples]
    return TensorData((x, y), val, batch_size=4, metrics=metrics)


def strict(text: str) -> Any:
    """The value of a JSON text; NaN and Infinity, which Python would read, are refused."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is not JSON")

    return json.loads(text, parse_constant=refuse)


def opened(folder: Path | None = None, **changes: Any) -> Record:
    record = Record(**changes)
    record.open(data(METRICS), folder)
    return record


def lines(folder: Path) -> list[Any]:
    return [strict(line) for line in (folder / "metrics.jsonl").read_text("utf-8").splitlines()]


def test_every_step_is_one_json_object_on_a_line_of_its_own(tmp_path: Path) -> None:
    record = opened(tmp_path / "made" / "if need be")
    for step in range(3):
        record.write(step, 1, {"train/loss": 0.1 * step, "names with\nnewlines": 1})
        # Whoever follows the file sees the line now, not when a buffer is full.
        assert lines(tmp_path / "made" / "if need be")[-1] == {
            "step": step,
            "epoch": 1,
            "train/loss": 0.1 * step,
            "names with\nnewlines": 1,
        }
    record.close({})
    assert len(lines(tmp_path / "made" / "if need be")) == 3


def test_the_summary_says_what_data_it_is_of() -> None:
    record = opened()
    record.write(1, 1, {"lr": 0.5})
    lr = {"first": 0.5, "best": 0.5, "last": 0.5}
    objective = {"tag": "val/psnr", "value": None, "higher_is_better": True}
    about = {"metrics": {"lr": lr}, "data": {"train": 8, "val": 4}}
    assert record.summary() == {"objective": objective, **about}
    anonymous = data(METRICS)
    del anonymous.provenance  # a user's own source need not say
    record.open(anonymous)
    assert record.summary()["data"] == {}


@pytest.mark.parametrize("bad", BAD)
def test_what_is_not_finite_is_null_in_the_record(tmp_path: Path, bad: float) -> None:
    record = opened(tmp_path)
    record.write(1, 1, {"train/loss": bad, "lr": 0.5})
    record.close({"metrics": record.tags, "objective": {"value": bad}})
    assert lines(tmp_path) == [{"step": 1, "epoch": 1, "train/loss": None, "lr": 0.5}]
    summary = strict((tmp_path / "summary.json").read_text("utf-8"))
    assert summary["metrics"]["train/loss"] == {"first": None, "best": None, "last": None}
    assert summary["objective"]["value"] is None


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("wrap", [float, lambda v: {"a": {"b": v}}, lambda v: {"a": [1, [v]]}])
def test_no_summary_holds_a_word_that_json_has_not(wrap: Callable[[float], Any], bad: float) -> None:
    text = json.dumps(finite(wrap(bad)))
    strict(text)
    assert "null" in text


def test_a_finite_value_is_left_as_it_is() -> None:
    value = {"a": 1.5, "b": {"c": "inf", "d": None, "e": True}, "f": 3}
    assert finite(value) == value


def test_two_runs_of_one_configuration_write_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for run in ("1", "2"):
        clock = float(run) * 1e6
        for name in ("time", "monotonic", "perf_counter"):
            monkeypatch.setattr(time, name, lambda clock=clock: clock)
        record = opened(tmp_path / run)
        record.write(1, 1, {"train/loss": 0.1 + 0.2, "lr": 1e-3})
        record.write(2, 1, {"train/loss": math.nan, "val/psnr": 13.0})
        record.close({"seconds": clock})
    first, second = ((tmp_path / run / "metrics.jsonl").read_bytes() for run in ("1", "2"))
    assert first == second


def test_opening_the_folder_again_adds_to_the_record(tmp_path: Path) -> None:
    for step in (1, 2):
        record = Record()
        record.open(data(METRICS), tmp_path, step=step - 1)
        record.write(step, 1, {"lr": 0.1})
        record.close({"steps": step})
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]
    assert strict((tmp_path / "summary.json").read_text("utf-8")) == {"steps": 2}


def test_without_a_folder_the_record_is_kept_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    record = opened()
    record.write(1, 1, {"val/psnr": 12.0})
    record.close({})
    assert record.last == {"val/psnr": 12.0}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("tag", "values", "best"),
    [
        ("val/loss", [3.0, 1.0, 2.0], 1.0),
        ("val/error", [3.0, 1.0, 2.0], 1.0),
        ("val/psnr", [3.0, 5.0, 2.0], 5.0),
        ("val/acc", [0.1, 0.1, 0.0], 0.1),
        ("train/loss", [-1.0, -2.0, 0.0], -2.0),
        ("val/loss", [math.nan, 2.0, math.nan], 2.0),
        ("val/psnr", [math.nan, 2.0, math.nan], 2.0),
        ("val/loss", [math.inf, 4.0, math.inf], 4.0),
        ("val/psnr", [-math.inf, 4.0, 3.0], 4.0),
    ],
)
def test_first_best_and_last_of_every_tag(tag: str, values: list[float], best: float) -> None:
    record = opened()
    for step, value in enumerate(values):
        record.write(step, 1, {tag: value})
    expected = {"first": values[0], "best": best, "last": values[-1]}
    assert record.tags[tag] == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize("cut", range(5))
def test_a_record_that_is_saved_and_restored_still_knows_the_best(tmp_path: Path, cut: int) -> None:
    values = [2.0, 5.0, 1.0, 4.0]
    whole, first, second = opened(), opened(), opened()
    for step, value in enumerate(values):
        whole.write(step, 1, {"val/psnr": value, "val/loss": value})
    for step, value in enumerate(values[:cut]):
        first.write(step, 1, {"val/psnr": value, "val/loss": value})
    checkpoint.save(tmp_path / "a.ckpt", first.state_dict())
    second.load_state_dict(checkpoint.load(tmp_path / "a.ckpt"))
    for step, value in enumerate(values[cut:]):
        second.write(step, 1, {"val/psnr": value, "val/loss": value})
    assert second.tags == whole.tags
    assert len(first.tags) == min(cut, 1) * 2


class Shown:
    """A view that keeps what it is shown."""

    def __init__(self) -> None:
        self.scalar: list[Any] = []

    def scalars(self, *shown: Any) -> None:
        self.scalar.append(shown)


def test_every_view_is_shown_every_line(tmp_path: Path) -> None:
    views, record = [Shown(), Shown()], Record()
    record.open(data(METRICS), tmp_path, views)
    record.write(7, 2, {"lr": 0.1})
    record.close({})
    for view in views:
        assert view.scalar == [(7, 2, {"lr": 0.1})]


def test_lines_beyond_the_step_of_a_resumed_run_and_half_lines_are_dropped(tmp_path: Path) -> None:
    first = Record()
    first.open(data(METRICS), tmp_path)
    for step in (10, 20, 30):
        first.write(step, 1, {"lr": 0.1})
    first.close({})
    with open(tmp_path / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 40, "ep')
    again = Record()
    again.open(data(METRICS), tmp_path, step=20)
    again.write(25, 1, {"lr": 0.1})
    again.close({})
    assert [line["step"] for line in lines(tmp_path)] == [10, 20, 25]


def test_a_summary_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    write_summary(tmp_path, {"steps": 1})
    before = (tmp_path / "summary.json").read_bytes()
    for size in (0, 1, 30):
        with file_limit(size), pytest.raises(OSError, match="File too large"):
            write_summary(tmp_path, {"steps": 2, "reason": "x" * 1000})
        assert (tmp_path / "summary.json").read_bytes() == before
    write_summary(tmp_path, {"steps": 3})
    assert strict((tmp_path / "summary.json").read_text("utf-8")) == {"steps": 3}
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]


def test_whoever_reads_the_old_summary_reads_it_to_its_end(tmp_path: Path) -> None:
    write_summary(tmp_path, {"steps": 1})
    with open(tmp_path / "summary.json", encoding="utf-8") as reader:
        begun = reader.read(3)
        write_summary(tmp_path, {"steps": 2, "reason": "longer than before"})
        assert strict(begun + reader.read()) == {"steps": 1}


@pytest.mark.parametrize(
    ("source", "tag"),
    [(data({}), "val/loss"), (data(METRICS), "val/psnr"), (data(METRICS, val_samples=0), "train/loss")],
)
def test_a_run_is_judged_by_the_first_thing_its_data_can_measure(source: TensorData, tag: str) -> None:
    assert recorded_tags(source)[0] == tag


@pytest.mark.parametrize(
    ("objective", "tag", "worst"),
    [
        (None, "val/psnr", -math.inf),
        ("val/acc", "val/acc", -math.inf),
        ("val/error", "val/error", math.inf),
        ("val/loss", "val/loss", math.inf),
        ("train/loss", "train/loss", math.inf),
    ],
)
def test_the_objective_is_the_last_value_or_the_worst_there_is_if_the_run_diverged(
    objective: str | None, tag: str, worst: float
) -> None:
    record = opened(objective=objective)
    outcome = {"tag": tag, "higher_is_better": worst < 0}
    assert record.objective_value(diverged=False) == outcome | {"value": None}
    record.write(1, 1, {tag: 3.0})
    record.write(2, 1, {tag: 2.0})
    assert record.objective_value(diverged=False) == outcome | {"value": 2.0}
    assert record.objective_value(diverged=True) == outcome | {"value": worst}


@pytest.mark.parametrize("tag", [None, "val/psnr", "val/loss", "train/loss", "grad/norm"])
def test_a_tag_that_the_run_records_is_accepted(tag: str | None) -> None:
    check_tag("objective", tag, data(METRICS))


@pytest.mark.parametrize("tag", ["val/ssim", "psnr", "loss", "", 3, True, ["val/loss"]])
def test_a_tag_that_nothing_records_is_refused_with_what_is_recorded(tag: Any) -> None:
    known = "val/psnr, val/error, val/acc, val/loss, train/loss, grad/norm"
    with pytest.raises(ValueError, match=rf"^monitor must be one of {known}, got "):
        check_tag("monitor", tag, data(METRICS))

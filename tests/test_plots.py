"""The pictures of runs and sweeps, drawn again from records alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Outcome
from test_curves import full_record, size_of, write

from trainer.console import Console
from trainer.tasks.plots import Plots, draw_run, draw_sweep


def a_run(folder: Path, overrides: list[str] | None = None, value: float | None = 1.0) -> Path:
    folder.mkdir(parents=True)
    write(folder, full_record(20))
    objective = {"tag": "val/psnr", "value": value, "higher_is_better": True}
    status = "completed" if value is not None else "diverged"
    summary: dict[str, Any] = {"status": status, "objective": objective}
    (folder / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    if overrides is not None:
        (folder / ".hydra").mkdir()
        (folder / ".hydra" / "overrides.yaml").write_text(json.dumps(overrides), encoding="utf-8")
    return folder


def test_a_run_has_the_pictures_that_its_record_allows(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    assert [path.name for path in draw_run(run)] == ["curves.png", "clip.png"]
    layers = [{"step": s, "layers/head/grad_norm": 1.0 / s} for s in (1, 2)]
    write(run, [*full_record(4), *layers])
    drawn = draw_run(run)
    assert [path.name for path in drawn] == ["curves.png", "clip.png", "layers.png"]
    for path in drawn:
        size_of(path)


def test_a_sweep_has_its_runs_over_each_other_and_with_seeds_their_comparison(tmp_path: Path) -> None:
    for number, norm in enumerate((0.1, 1.0)):
        a_run(tmp_path / f"{number}", [f"clip.max_norm={norm}"], 10.0 + number)
    reports = ["report.md", "report.csv", "report.png"]
    assert [path.name for path in draw_sweep(tmp_path)] == ["runs.png", *reports]
    for number, norm in enumerate((0.1, 1.0), 2):
        a_run(tmp_path / f"{number}", [f"clip.max_norm={norm}", "seed=1"], None if number == 2 else 9.0)
    (tmp_path / "4").mkdir()  # killed before it could say how it went
    write(tmp_path / "4", full_record(3))
    drawn = draw_sweep(tmp_path)
    assert [path.name for path in drawn] == ["runs.png", "comparison.png", *reports]
    for path in drawn:
        if path.suffix == ".png":
            size_of(path)
    assert "| 4 |" in (tmp_path / "report.md").read_text()
    assert "1 killed" in (tmp_path / "report.md").read_text()


def test_a_folder_without_a_record_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^resume must name a run or a sweep that has recorded a step"):
        Plots().check(tmp_path)


def test_one_logged_step_is_no_curve_and_that_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, [{"step": 1, "epoch": 1, "train/loss": 1.0, "grad/norm": 1.0}])
    assert Plots().run(tmp_path, Console())["status"] == "completed"
    assert "fewer than two logged steps" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"metrics.jsonl"}


def test_the_command_needs_only_the_record(command: Callable[..., Outcome], tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    record = (run / "metrics.jsonl").read_bytes()
    outcome = command("task=plots", "resume=run")
    assert outcome.code == 0
    assert outcome.out.splitlines() == ["run/clip.png"]  # the fixture draws no curves
    assert (run / "metrics.jsonl").read_bytes() == record
    assert not (run / ".hydra").exists()
    missing = command("task=plots", "resume=elsewhere")
    assert missing.code == 2
    assert "got elsewhere" in missing.err
    assert not Path("elsewhere").exists()

"""The curves of several runs over each other."""

from pathlib import Path

from test_curves import full_record, size_of, write

from trainer.pictures.runs_plot import COLOURS, _colours, _names, _tags, draw_runs
from trainer.series import read_series
from trainer.sweeps.jobs import SweptJob


def job(folder: Path, overrides: list[str], value: float, steps: int = 12) -> SweptJob:
    folder.mkdir(exist_ok=True)
    write(folder, full_record(steps))
    objective = {"tag": "val/psnr", "value": value, "higher_is_better": True}
    return SweptJob(overrides, folder, {"status": "completed", "objective": objective})


def test_a_run_is_named_by_what_it_differs_in_and_not_by_its_seed(tmp_path: Path) -> None:
    typed = (["model=mlp", "clip=norm", "seed=0"], ["model=mlp", "clip=none", "seed=1"], ["model=mlp"])
    jobs = [job(tmp_path / f"{i}", overrides, 1.0) for i, overrides in enumerate(typed)]
    assert _names(jobs) == ["clip=norm", "clip=none", "as configured"]


def test_of_many_settings_the_best_have_colours(tmp_path: Path) -> None:
    jobs = [job(tmp_path / f"{i}", [f"optimizer.lr={i}"], float(i)) for i in range(12)]
    assert list(_colours(jobs)) == [f"optimizer.lr={i}" for i in range(12 - len(COLOURS), 12)]
    assert size_of(draw_runs(jobs, tmp_path / "runs.png"))[0] > 1000


def test_the_objective_has_a_panel_beside_loss_norm_and_rate(tmp_path: Path) -> None:
    one = job(tmp_path / "0", [], 1.0)
    series, _ = read_series(tmp_path / "0" / "metrics.jsonl")
    assert list(_tags([(one, series)])) == ["train/loss", "val/psnr", "grad/norm", "lr"]
    only_loss = {"train/loss": series["train/loss"]}
    assert list(_tags([(one, only_loss)])) == ["train/loss"]


def test_runs_without_two_logged_steps_are_left_out(tmp_path: Path) -> None:
    short = job(tmp_path / "0", ["a.b=1"], 1.0, steps=1)
    assert draw_runs([short], tmp_path / "runs.png") is None
    size_of(draw_runs([short, job(tmp_path / "1", ["a.b=2"], 1.0)], tmp_path / "runs.png"))

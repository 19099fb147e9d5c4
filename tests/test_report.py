"""The report of a sweep: what it says first, what its table holds, that its command can be typed."""

from __future__ import annotations

import csv
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Outcome
from sweeps import LOST, job, sweep
from tensorboard.plugins.hparams import plugin_data_pb2
from test_tensorboard import events

from trainer.sweeps import report
from trainer.sweeps.jobs import SweptJob, close_sweep
from trainer.sweeps.report import write_report

Command = Callable[..., Outcome]
RUN = ["data=random", "model=mlp", "trainer.max_steps=20", "trainer.log_every=10"]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Without pictures, which have their own tests."""
    if "command" not in request.fixturenames:
        monkeypatch.setattr(report, "draw_report", lambda jobs, folder: [])


def text(jobs: list[SweptJob], folder: Path) -> str:
    return write_report(jobs, folder).text.read_text(encoding="utf-8")


def rows(told: str, heading: str) -> list[list[str]]:
    """The cells of the first table that begins with that heading."""
    lines = told[told.index(f"| {heading} |") :].split("\n\n")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_jobs_are_listed_from_the_best_and_those_without_an_end_last_with_the_cause(
    tmp_path: Path,
) -> None:
    values = {1: 0.5, 2: LOST, 3: None, 4: 0.25}
    told = text(sweep(lambda a__b: values[a__b], a__b=[1, 2, 3, 4]), tmp_path)
    listed = rows(told, "job")
    assert [row[0] for row in listed] == ["3", "0", "1", "2"]
    assert [row[1] for row in listed] == ["0.2500", "0.5000", "–", "–"]
    assert [row[-1] for row in listed[2:]] == ["diverged: the loss is NaN", "failed: it broke"]
    assert "4 jobs: 2 completed, 1 diverged, 1 failed. Less is better." in told
    assert "python train.py model=mlp a.b=4" in told


def test_of_several_seeds_the_best_is_the_best_mean_and_not_the_luckiest_job(tmp_path: Path) -> None:
    values = {("a", 0): 1.0, ("a", 1): 9.0, ("b", 0): 3.0, ("b", 1): 2.0}
    told = text(sweep(lambda clip, seed: values[clip, seed], clip=["a", "b"], seed=[0, 1]), tmp_path)
    assert "python train.py model=mlp clip=b seed=0" in told
    assert "val/loss 2.50 ± 0.71 over 2 seeds" in told
    assert [row[:2] for row in rows(told, "clip")] == [["a", "5.0 ± 5.7"], ["b", "2.50 ± 0.71"]]


def test_the_best_seed_that_is_typed_again_is_one_that_did_not_diverge(tmp_path: Path) -> None:
    values = {("a", 0): 1.0, ("a", 1): 1.0, ("b", 0): LOST, ("b", 1): 0.5}
    told = text(sweep(lambda clip, seed: values[clip, seed], clip=["a", "b"], seed=[0, 1]), tmp_path)
    assert "val/loss 0.5000 over 2 seeds (1 diverged)" in told
    assert "python train.py model=mlp clip=b seed=1" in told


def test_without_an_end_there_is_no_command(tmp_path: Path) -> None:
    told = text(sweep(lambda clip: LOST, clip=["a", "b"]), tmp_path)
    assert "No job reached its end." in told
    assert "train.py" not in told


def test_stable_rates_are_told_with_a_mark_where_the_sweep_ends(tmp_path: Path) -> None:
    losses = {0.001: 1.9, 0.01: 0.6, 0.1: 0.5, 1.0: 0.9}
    told = text(
        sweep(
            lambda optimizer__lr, clip: LOST
            if clip == "none" and optimizer__lr == 1.0
            else losses[optimizer__lr],
            clip=["none", "norm"],
            optimizer__lr=list(losses),
        ),
        tmp_path,
    )
    assert rows(told[told.index("## Stability") :], "clip") == [
        ["none", "0.01 to 0.1", "1.0", "0.1", "0.5000", "0.7500"],
        ["norm", "0.01 to 1", "≥ 2.0", "0.1", "0.5000", "0.4750"],
    ]


def test_the_table_has_a_row_per_job_and_a_column_per_key_and_final_metric(tmp_path: Path) -> None:
    jobs = sweep(lambda clip, a__b: a__b if clip == "norm" else None, clip=["none", "norm"], a__b=[2, 1])
    with open(write_report(jobs, tmp_path).table, encoding="utf-8", newline="") as file:
        found = list(csv.DictReader(file))
    assert [row["job"] for row in found] == ["3", "2", "0", "1"]
    best = found[0]
    assert (best["clip"], best["a.b"], best["objective"]) == ("norm", "1", "1")
    assert (best["val/loss"], best["train/loss"], best["largest_norm"]) == ("1", "1", "3.0")
    assert (found[-1]["status"], found[-1]["objective"], found[-1]["reason"]) == (
        "failed",
        "",
        "it broke",
    )
    assert "lr" not in best  # it is no result
    assert "model" not in best  # all have it


def test_a_bar_in_a_value_does_not_break_the_table(tmp_path: Path) -> None:
    told = text([job(0, ["a.b='x|y'"], 1.0), job(1, ["a.b=z"], 2.0)], tmp_path)
    assert r"'x\|y'" in told
    assert all(len(row) == 6 for row in rows(told, "job"))


def test_what_cannot_be_drawn_or_written_is_told_in_a_line_and_ends_no_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> list[Path]:
        raise ArithmeticError("no such colour")

    monkeypatch.setattr(report, "draw_report", broken)
    jobs = sweep(lambda clip: 1.0, clip=["a", "b"])
    close_sweep(jobs, tmp_path)
    out = capsys.readouterr().out
    assert "a picture of the report is not drawn: ArithmeticError: no such colour" in out
    assert "![]" not in (tmp_path / "report.md").read_text()
    (tmp_path / "report.csv").unlink()
    (tmp_path / "report.csv").mkdir()
    close_sweep(jobs, tmp_path)
    assert "the report is not written: [Errno 21] Is a directory" in capsys.readouterr().out


def test_the_command_of_the_best_job_does_it_again(command: Command, tmp_path: Path) -> None:
    """Also where a sweep config set more than it swept, and a folder of its own holds it."""
    (tmp_path / "my conf" / "sweep").mkdir(parents=True)
    lines = [
        "# @package _global_",
        "hydra: {mode: MULTIRUN, sweeper: {params: {clip.max_norm: '0.1,1'}}}",
    ]
    lines.append("optimizer: {lr: 0.02}")
    (tmp_path / "my conf" / "sweep" / "mine.yaml").write_text("\n".join(lines), encoding="utf-8")
    arguments = ["--config-dir", "my conf", *RUN, "sweep=mine", "loss={alpha:1,beta:0,gamma:0.5}"]
    outcome = command(*arguments, "hydra.sweep.dir=swept")
    assert outcome.code == 0
    assert "report      swept/report.md" in outcome.out
    told = Path("swept/report.md").read_text(encoding="utf-8")
    typed = shlex.split(next(line for line in told.splitlines() if line.startswith("python train.py")))
    best = rows(told, "job")[0][0]
    again = command(*typed[2:], "hydra.run.dir=again")
    assert again.code == 0
    assert Path("again/metrics.jsonl").read_bytes() == Path("swept", best, "metrics.jsonl").read_bytes()
    assert Path("swept/report.png").exists()
    # TensorBoard is told what the jobs differ in, which its HPARAMS tab begins with.
    (experiment,) = [
        plugin_data_pb2.HParamsPluginData.FromString(value.metadata.plugin_data.content).experiment
        for event in events(Path("swept/0"))
        for value in event.summary.value
        if value.tag == "_hparams_/experiment"
    ]
    assert [info.name for info in experiment.hparam_infos if info.differs] == ["clip.max_norm"]
    shutil.rmtree("again")
    # The job itself can be gone on with, as the single run that it is.
    resumed = command("--config-dir", "my conf", f"resume=swept/{best}", "task=evaluate")
    assert resumed.code == 0
    assert not Path("outputs").exists()

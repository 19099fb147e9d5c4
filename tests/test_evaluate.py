"""A checkpoint evaluated is what the validation of the run would say, and leaves the run as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL, Outcome
from torch import nn

from trainer.checkpoint import Checkpoints
from trainer.console import Console
from trainer.data.random import random_regression
from trainer.data.tensors import TensorData
from trainer.loop import Trainer
from trainer.metrics import Metric, squared_error
from trainer.tasks.evaluate import Evaluate
from trainer.tasks.train import Job


def make(task: Evaluate, folder: Path | None = None, steps: int = 6, lr: float = 0.1) -> Job:
    """A job; with a folder, after a run of three epochs in it."""
    torch.manual_seed(0)
    data = random_regression(samples=20, features=3, targets=1, batch_size=8)
    data.metrics = {"error": Metric(squared_error, higher_is_better=False)}
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr)
    checkpoints = Checkpoints(every_steps=2, keep=1)
    trainer = Trainer(
        model, nn.MSELoss(), optimizer, max_steps=steps, checkpoints=checkpoints, device="cpu"
    )
    if folder is not None:
        trainer.fit(data, folder)
    return Job(task, trainer, data, {"data": "random"}, {}, {"data": {"samples": 20}})


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "evaluate.jsonl").read_text().splitlines()]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name not in ("evaluate.jsonl", ".lock")
    }


def test_the_validation_is_the_one_that_the_run_recorded_last(tmp_path: Path) -> None:
    job = make(Evaluate(), tmp_path)
    before = contents(tmp_path)
    summary = job.run(tmp_path, Console(brief=True))
    assert summary["status"] == "completed"
    (line,) = lines(tmp_path)
    recorded = {tag: v for tag, v in job.trainer.record.last.items() if tag.startswith("val/")}
    assert line["metrics"] == recorded
    assert (line["step"], line["split"], line["samples"]) == (6, "val", len(job.data.val[0]))
    assert contents(tmp_path) == before


def test_the_training_split_is_the_first_epoch_in_evaluation_mode(tmp_path: Path) -> None:
    job = make(Evaluate(split="train"), tmp_path)
    job.run(tmp_path, Console(brief=True))
    assert isinstance(job.data, TensorData)
    inputs, targets = job.data.train
    with torch.no_grad():
        expected = squared_error(job.trainer.model.eval()(inputs), targets).mean().item()
    (line,) = lines(tmp_path)
    assert line["metrics"] == pytest.approx({"train/loss": expected, "train/error": expected})
    assert line["samples"] == len(inputs)


def test_the_best_checkpoint_is_the_one_with_the_best_objective(tmp_path: Path) -> None:
    job = make(Evaluate(checkpoint="best"), tmp_path, steps=12, lr=0.9)
    assert job.trainer.checkpoints.best is not None
    job.trainer.checkpoints.best = (0.0, 10)  # as though validation had been best then
    assert not (tmp_path / "checkpoints" / "step-00000010.ckpt").exists()
    with pytest.raises(FileNotFoundError):
        job.run(tmp_path, Console(brief=True))
    other = make(Evaluate(), tmp_path / "other", steps=10, lr=0.9)
    (tmp_path / "other" / "checkpoints" / "step-00000010.ckpt").rename(
        tmp_path / "checkpoints" / "step-00000010.ckpt"
    )
    job.run(tmp_path, Console(brief=True))
    other.run(tmp_path / "other", Console(brief=True))
    assert lines(tmp_path)[-1]["step"] == 10
    assert lines(tmp_path)[-1]["metrics"] == lines(tmp_path / "other")[-1]["metrics"]


def test_what_cannot_be_evaluated_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^resume must name a run folder that has a checkpoint"):
        Evaluate().check(make(Evaluate()))
    job = make(Evaluate(), tmp_path)
    job.data.validates = False
    with pytest.raises(ValueError, match=r"^task\.split must be train where"):
        job.task.check(job)
    with pytest.raises(ValueError, match=r"^split must be one of val, train, got 'test'"):
        Evaluate(split="test")
    with pytest.raises(ValueError, match=r"^checkpoint must be one of newest, best"):
        Evaluate(checkpoint="last")


def test_data_that_scales_itself_is_pointed_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    job = make(Evaluate(), tmp_path)
    job.run(tmp_path, Console(brief=True))
    assert "scaled otherwise" not in capsys.readouterr().out
    job.data.provenance["normalisation"] = {"mean": [0.5]}
    job.run(tmp_path, Console(brief=True))
    assert "scaled otherwise" in capsys.readouterr().out


def test_other_data_may_be_named_and_the_run_stays_what_it_is(command: Callable[..., Outcome]) -> None:
    assert command(*SMALL, "hydra.run.dir=run").code == 0
    folder, before = Path("run"), contents(Path("run"))
    assert command("task=evaluate", "resume=run", "data.val_samples=50").code == 0
    assert command("task=evaluate", "resume=run").code == 0
    assert contents(folder) == before
    other, own = lines(folder)
    assert own["samples"] != other["samples"]
    assert (
        own["metrics"]["val/loss"] == json.loads(before["summary.json"])["metrics"]["val/loss"]["last"]
    )
    refused = command("task=evaluate", "resume=run", "model.activation=tanh")
    assert refused.code == 2
    assert "model.activation (relu -> tanh)" in refused.err
    assert contents(folder) == before

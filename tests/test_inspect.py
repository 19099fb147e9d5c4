"""task=inspect says what would be trained, and trains nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import SMALL, Outcome
from test_curves import size_of
from torch import nn

from trainer.console import Console
from trainer.data.tensors import TensorData
from trainer.loop import Trainer
from trainer.tasks.inspect import Inspect
from trainer.tasks.train import Job

FILES = {"inspect.json", "schedule.png", "activations.png", "graph.dot"}


def a_job() -> Job:
    torch.manual_seed(0)
    x, y = torch.randn(60, 6), torch.arange(60) % 3
    x[31] = 1e6
    y[:20] = 0
    data = TensorData((x[:40], y[:40]), (torch.cat([x[40:], x[3:4]]), y[:21]), batch_size=8)
    model = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3))
    torch.nn.init.zeros_(model[3].weight)
    torch.nn.init.zeros_(model[3].bias)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer, max_epochs=2, device="cpu")
    parts = {
        "clip": {"_target_": "trainer.clipping.ClipByNorm", "max_norm": 0.5, "norm_type": 2},
        "data": {"_target_": "no.such.Thing", "path": "x" * 300},
    }
    choices = {"data": "mine", "clip": "norm", "scheduler": "none"}
    return Job(Inspect(), trainer, data, choices, {}, parts)


def test_the_report_names_what_was_planted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = a_job()
    before = [p.clone() for p in job.trainer.parameters]
    summary = job.run(tmp_path, Console())
    told = capsys.readouterr().out
    assert summary["status"] == "completed"
    assert "train inputs: robust z beyond 6 in sample 31 (" in told
    assert "in both splits: 1 validation sample, train = val 3 = 20" in told
    assert "train: 40 labels of 3 classes" in told
    assert "zero: nothing comes out" in told
    assert "max_norm=0.5*  " not in told
    assert "max_norm=0.5*" in told
    assert "10 steps in 2 epochs, learning rate 0.100 at first" in told
    assert all(torch.equal(a, b) for a, b in zip(before, job.trainer.parameters, strict=True))
    assert job.trainer.step == 0


def test_its_files_hold_the_same(tmp_path: Path) -> None:
    job = a_job()
    job.run(tmp_path, Console(brief=True))
    assert {path.name for path in tmp_path.iterdir()} >= FILES
    size_of(tmp_path / "activations.png")
    size_of(tmp_path / "schedule.png")
    report = json.loads((tmp_path / "inspect.json").read_text(encoding="utf-8"))
    assert report["data"]["shared"] == [[3, 20]]
    assert [layer["mark"] for layer in report["layers"]] == ["", "", "", "zero"]
    assert report["memory"]["parameters"] == 4 * (6 * 4 + 4 + 8 + 4 * 3 + 3)
    assert (report["steps"], report["lr"]["last"]) == (10, 0.1)


def test_samples_must_be_a_whole_number() -> None:
    with pytest.raises(ValueError, match=r"^samples must be a whole number >= 1, got 0"):
        Inspect(samples=0)


def test_nothing_is_trained_and_auto_does_not_take_it_for_a_run(command: Callable[..., Outcome]) -> None:
    outcome = command("task=inspect", *SMALL)
    assert outcome.code == 0
    assert outcome.run_folders == []
    (folder,) = (path.parent for path in Path("outputs").glob("*/*/inspect.json"))
    assert not (folder / "checkpoints").exists()
    trained = command("resume=auto", *SMALL)
    assert trained.code == 0
    (run,) = trained.run_folders
    assert run.resolve() != folder.resolve()
    before = (run / ".hydra" / "overrides.yaml").read_bytes()
    assert command("task=inspect", f"resume={run}").code == 0
    assert (run / "inspect.json").exists()
    assert (run / ".hydra" / "overrides.yaml").read_bytes() == before

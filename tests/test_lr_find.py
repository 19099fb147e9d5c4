"""task=lr_find prints a rate to type, draws the curve, and leaves no run."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from broken import model, same, tensors_of
from conftest import SMALL, Outcome
from torch import nn

from trainer.clipping import ZClip
from trainer.console import Console
from trainer.data.random import random_regression
from trainer.diagnostics import Rates
from trainer.loop import Trainer
from trainer.tasks.lr_find import LrFind, draw_rates
from trainer.tasks.train import Job

Command = Callable[..., Outcome]


def job(network: nn.Module, **settings: float) -> Job:
    data = random_regression(samples=32, features=4, targets=3, batch_size=8)
    optimizer = torch.optim.SGD(network.parameters(), 0.05, momentum=0.9)
    trainer = Trainer(network, nn.MSELoss(), optimizer, clip=ZClip(), max_epochs=1, device="cpu")
    task = LrFind(steps=40, **settings)  # type: ignore[arg-type]
    return Job(task, trainer, data, dict.fromkeys(("data", "model", "loss", "clip"), "x"), {})


def test_it_changes_nothing_of_the_trainer_and_says_what_to_type(tmp_path: Path) -> None:
    network = model(nn.BatchNorm1d(5), nn.Dropout(0.2))
    looking, stream = job(network), io.StringIO()
    trainer = looking.trainer
    before, clip = tensors_of(network, trainer.optimizer), repr(trainer.clip.state_dict())
    summary = looking.task.run(looking, tmp_path, Console(stream=stream))
    assert summary["status"] == "completed"
    assert same(before, tensors_of(network, trainer.optimizer))
    assert repr(trainer.clip.state_dict()) == clip
    assert trainer.optimizer.param_groups[0]["lr"] == 0.05
    written = json.loads((tmp_path / "lr_find.json").read_text(encoding="utf-8"))
    typed = re.search(r"^optimizer\.lr=(\S+)  \(it is 0\.05\)$", stream.getvalue(), re.MULTILINE)
    assert typed is not None
    assert float(typed[1]) == written["suggested"]
    assert len(written["lrs"]) == len(written["losses"]) == len(written["smoothed"])
    assert (tmp_path / "lr_find.png").read_bytes().startswith(b"\x89PNG")


def test_a_range_without_a_good_rate_has_failed(tmp_path: Path) -> None:
    looking, stream = job(model(), min_lr=1e3, max_lr=1e6), io.StringIO()
    summary = looking.task.run(looking, tmp_path, Console(stream=stream))
    assert summary["status"] == "failed"
    assert "no rate in this range lowered the loss" in stream.getvalue()


def test_a_curve_of_equal_losses_is_drawn_too(tmp_path: Path) -> None:
    flat = Rates([1e-3, 1e-2, 1e-1], [2.0] * 3, [2.0] * 3, None, "")
    draw_rates(flat, 1e-2, tmp_path / "flat.png")
    assert (tmp_path / "flat.png").stat().st_size > 1000


def test_a_command_leaves_a_picture_and_no_run(command: Command) -> None:
    done = command("task=lr_find", *SMALL, "task.steps=60", "task.max_lr=1", "hydra.run.dir=here")
    assert (done.code, done.err) == (0, "")
    names = {path.name for path in (done.folder / "here").iterdir()}
    assert names == {".hydra", ".lock", "lr_find.json", "lr_find.png"}


@pytest.mark.parametrize("setting", ["min_lr=0", "max_lr=1e-9", "steps=3"])
def test_an_option_out_of_range_is_refused(command: Command, setting: str) -> None:
    done = command("task=lr_find", *SMALL, f"task.{setting}")
    assert done.code == 2
    assert f"task.{setting.partition('=')[0]} must be" in done.err

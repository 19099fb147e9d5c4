"""An export holds the weights bit for bit, says where they come from, and loads without this package."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trainer.console import Console
from trainer.data.random import random_regression
from trainer.loop import Trainer
from trainer.tasks import export
from trainer.tasks.export import Export
from trainer.tasks.train import Job

pytest.importorskip("safetensors")


class Tied(nn.Module):
    """Two names for one weight, a transposed view, a BatchNorm with its integer counter."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("transposed", torch.arange(6.0).reshape(2, 3).t())

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.norm(self.second(self.first(inputs)))
        return outputs


def job(model: nn.Module, folder: Path | None = None) -> Job:
    """A job whose run has been trained for three steps, if there is a folder for it."""
    torch.manual_seed(0)
    data = random_regression(samples=32, features=4, targets=4, batch_size=8)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    trainer = Trainer(model, nn.MSELoss(), optimizer, max_epochs=None, max_steps=3, device="cpu")
    if folder is not None:
        trainer.fit(data, folder)
    return Job(Export(), trainer, data, {}, {})


def read(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


@pytest.fixture
def console() -> Console:
    return Console(brief=True)


def test_every_tensor_is_there_bit_for_bit_tied_ones_too(tmp_path: Path, console: Console) -> None:
    trained = job(Tied(), tmp_path)
    trained.task.run(trained, tmp_path, console)
    tensors, _ = read(tmp_path)
    state = trained.trainer.model.state_dict()
    assert tensors.keys() == state.keys()
    for name, value in state.items():
        assert tensors[name].dtype == value.dtype
        assert torch.equal(tensors[name], value), name
    fresh = Tied()
    fresh.load_state_dict(tensors)
    assert fresh.first.weight is fresh.second.weight
    assert not list(tmp_path.glob("*.partial"))


def test_the_metadata_say_where_the_weights_come_from(tmp_path: Path, console: Console) -> None:
    trained = job(Tied(), tmp_path)
    trained.task.run(trained, tmp_path, console)
    _, metadata = read(tmp_path)
    checkpoint = tmp_path / "checkpoints" / "step-00000003.ckpt"
    assert metadata["step"] == "3"
    assert metadata["checkpoint_sha256"] == hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    assert metadata["framework"].startswith("trimtab ")


def test_the_summary_is_that_of_a_finished_task(tmp_path: Path, console: Console) -> None:
    trained = job(Tied(), tmp_path)
    kept = trained.trainer.record.objective_value(diverged=False)
    trained.trainer.record.objective = None  # as in a run that was only resumed, not opened
    summary = trained.task.run(trained, tmp_path, console)
    assert (summary["status"], summary["reason"]) == ("completed", "")
    assert summary["objective"] == kept


def test_fresh_weights_are_not_exported(tmp_path: Path, console: Console) -> None:
    untrained = job(Tied())
    with pytest.raises(
        ValueError, match=r"^resume must name a run folder .*task=export resume=outputs/"
    ):
        untrained.task.run(untrained, tmp_path, console)
    assert not list(tmp_path.iterdir())


def test_without_the_package_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=re.escape('pip install "trimtab[export]"')):
        Export()


@pytest.mark.parametrize("after", ["write_bytes", "replace"])
def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, console: Console, after: str
) -> None:
    trained = job(Tied(), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"old")

    def full(*args: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, after, full)
    with pytest.raises(OSError, match="No space left"):
        trained.task.run(trained, tmp_path, console)
    monkeypatch.undo()
    assert (tmp_path / "model.safetensors").read_bytes() == b"old"
    assert not (tmp_path / "model.safetensors.partial").exists()

"""Edges of a run: half steps, full disks, frozen modules, losses and data that do not behave."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from full_disk import file_limit
from torch import Tensor, nn

from trainer import checkpoint
from trainer.checkpoint import Checkpoints, newest_first
from trainer.clipping import ClipByNorm, total_norm
from trainer.data.tensors import TensorData
from trainer.guard import Skip
from trainer.loop import Trainer
from trainer.metrics import Metric
from trainer.rehearsal import rehearse
from trainer.schedulers import Horizon, plateau
from trainer.transaction import Transaction


def data(samples: int = 40, batch_size: int = 4, **options: Any) -> TensorData:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(samples, 3, generator=generator), torch.randn(samples, 1, generator=generator)
    return TensorData((x, y), (x[:8], y[:8]), batch_size=batch_size, **options)


def net(*more: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), *more, nn.Linear(4, 1))


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), 0.1)


class Impatient(nn.Module):
    """In the middle of its fourth forward pass, Ctrl-C is pressed twice."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == 4:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
        return x


def test_a_second_interrupt_leaves_no_half_step_in_the_checkpoint(tmp_path: Path) -> None:
    model = net(Impatient())
    run = Trainer(model, nn.MSELoss(), sgd(model), max_steps=8, max_epochs=None)
    with pytest.raises(KeyboardInterrupt):
        run.fit(data(), tmp_path)
    for path in newest_first(tmp_path / "checkpoints"):
        state = checkpoint.load(path)
        assert state["model"]["1.num_batches_tracked"] == state["counters"]["step"]


def test_a_run_that_diverges_at_the_end_of_its_first_epoch_is_diverged_under_a_plateau() -> None:
    model = net()
    optimizer = sgd(model)
    source = data(4, transform=lambda x, y, generator: (x * math.nan, y))
    run = Trainer(
        model,
        nn.MSELoss(),
        optimizer,
        scheduler=plateau(optimizer, Horizon(3, 3, 1)),
        guard=Skip(0),
        max_epochs=3,
    )
    assert run.fit(source)["status"] == "diverged"


def test_a_plateau_may_watch_what_is_not_recorded_in_every_epoch() -> None:
    model = net()
    optimizer = sgd(model)
    schedule = plateau(optimizer, Horizon(30, 3, 10), monitor="train/loss")
    run = Trainer(model, nn.MSELoss(), optimizer, scheduler=schedule, max_epochs=3, log_every=25)
    assert run.fit(data())["status"] == "completed"


def test_torchs_own_plateau_is_a_torch_scheduler_too() -> None:
    model = net()
    optimizer = sgd(model)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    try:
        Trainer(model, nn.MSELoss(), optimizer, scheduler=scheduler, max_epochs=1).fit(data())
    except ValueError:
        return  # refused in a sentence is as good


def test_a_disk_too_full_for_the_last_checkpoint_still_gets_a_summary(tmp_path: Path) -> None:
    model = net(nn.Linear(4, 400), nn.Linear(400, 4))  # a checkpoint of more than 10 kB
    saves = Checkpoints(every_steps=None, every_seconds=None)
    slow = torch.optim.SGD(model.parameters(), lr=1e-3)  # no step is refused, and kept
    run = Trainer(model, nn.MSELoss(), slow, checkpoints=saves, max_epochs=1)
    with file_limit(8000), pytest.raises(OSError, match="File too large"):
        run.fit(data(), tmp_path)
    assert json.loads((tmp_path / "summary.json").read_text())["status"] == "failed"
    assert run.record.file is None


@pytest.mark.parametrize("room", [0, 100, 250])
def test_a_disk_too_full_for_the_record_is_told_by_the_file_and_what_to_type(
    tmp_path: Path, room: int
) -> None:
    model = net()
    run = Trainer(model, nn.MSELoss(), sgd(model), max_epochs=1, log_every=1)
    told = (
        rf"{tmp_path}/metrics.jsonl could not be written: File too large. Make room .*resume={tmp_path}$"
    )
    with file_limit(room), pytest.raises(OSError, match=told):
        run.fit(data(), tmp_path)
    assert run.record.file is None


def test_of_a_disk_that_fills_up_the_first_failure_is_told(tmp_path: Path) -> None:
    model = net(nn.Linear(4, 400), nn.Linear(400, 4))
    saves = Checkpoints(every_steps=1, every_seconds=None)
    slow = torch.optim.SGD(model.parameters(), lr=1e-3)
    run = Trainer(model, nn.MSELoss(), slow, checkpoints=saves, max_epochs=1, log_every=1000)
    with file_limit(600), pytest.raises(OSError, match=r"step-00000001.ckpt could not be written"):
        run.fit(data(), tmp_path)
    assert not (tmp_path / "summary.json").exists()  # there was no room for it either


@pytest.mark.parametrize("fused", [True, False])
def test_a_norm_beyond_float32_is_clipped_and_not_zeroed(fused: bool) -> None:
    parameter = nn.Parameter(torch.zeros(10_000))
    optimizer = torch.optim.SGD([parameter], lr=1.0, fused=fused)
    parameter.grad = torch.full((10_000,), 3e38)
    gradients = [parameter.grad]
    clipped = ClipByNorm(1.0)(gradients, total_norm(gradients))
    Transaction([], optimizer).commit(gradients, clipped)
    assert parameter.detach().norm().item() == pytest.approx(1.0, rel=1e-3)


def test_a_frozen_batch_norm_stays_frozen() -> None:
    model = net()
    model[1].eval()
    before = model[1].running_mean.clone()
    Trainer(model, nn.MSELoss(), sgd(model), max_epochs=1).fit(data())
    assert torch.equal(before, model[1].running_mean)


def test_a_metric_that_is_no_value_per_sample_is_refused() -> None:
    """Its mean over the batch would be divided by the number of samples once more."""
    model = net()
    metric = Metric(lambda p, t: (p - t).square().mean(), higher_is_better=False)
    run = Trainer(model, nn.MSELoss(), sgd(model), max_epochs=1)
    with pytest.raises(ValueError, match="the metric mse must return one value per sample"):
        rehearse(run, data(metrics={"mse": metric}), {"model": "m", "loss": "l", "data": "d"})


def test_a_last_batch_of_one_under_batch_norm_is_named_before_the_run() -> None:
    model = net()
    run = Trainer(model, nn.MSELoss(), sgd(model), max_epochs=1)
    with pytest.raises(ValueError, match="batch"):
        rehearse(run, data(41), {"model": "m", "loss": "l", "data": "d"})


class Moody(nn.Module):
    """Returns other terms in every second step."""

    calls = 0

    def forward(self, p: Tensor, t: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        self.calls += 1
        loss = (p - t).square().mean()
        return loss, {"a": loss, "b": loss} if self.calls % 2 else {"a": loss}


def test_terms_that_come_and_go_are_named() -> None:
    model = net()
    run = Trainer(model, Moody(), sgd(model), max_epochs=1, log_every=5)
    with pytest.raises(
        ValueError, match=r"the same terms in every step, got \['a'\] after \['a', 'b'\]"
    ):
        run.fit(data())

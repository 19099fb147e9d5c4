"""A state goes into the parts it is of, or is refused by name before anything has changed."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL, Outcome
from torch import nn

from trainer import checkpoint
from trainer.data.random import random_regression
from trainer.fitting import reconfigured
from trainer.guard import Rewind
from trainer.loop import Trainer
from trainer.schedulers import Horizon, cosine

State = dict[str, Any]


def trained(steps: int = 4) -> Trainer:
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optimizer = torch.optim.Adam(model.parameters(), 0.01, fused=True)
    limits: dict[str, Any] = {"max_epochs": None, "max_steps": steps, "device": "cpu"}
    run = Trainer(model, nn.MSELoss(), optimizer, guard=Rewind(every=2), **limits)
    run.fit(random_regression(32, 3, 2, batch_size=8))
    return run


def nan(state: State) -> None:
    state["model"]["bias"][1] = torch.nan


def halves(state: State) -> None:
    state["model"]["bias"] = state["model"]["bias"].half()


def short(moments: State) -> None:
    moments["state"][0]["exp_avg"] = moments["state"][0]["exp_avg"][:1].clone()


def no_step(moments: State) -> None:
    moments["state"][1]["step"] = torch.zeros(0)


SPOILT: dict[str, tuple[Callable[[State], Any], str]] = {
    "a missing part": (lambda s: s.pop("clip"), "the state has no clip"),
    "a weight": (nan, "bias of model holds NaN or inf; go back to an earlier checkpoint"),
    "a dtype": (halves, r"bias of model is torch\.float16, here torch\.float32"),
    "a shape": (
        lambda s: s["model"].update(bias=torch.zeros(3)),
        r"bias of model has shape \(3,\), here \(2,\)",
    ),
    "moments": (lambda s: short(s["optimizer"]), r"exp_avg of parameter 0 has shape \(1, 3\), here"),
    "steps": (lambda s: no_step(s["optimizer"]), r"step of parameter 1 has shape \(0,\), here \(\)"),
    "earlier moments": (
        lambda s: short(s["snapshots"]["taken"][-1]["optimizer"]),
        r"exp_avg of parameter 0 has shape \(1, 3\), here \(2, 3\)",
    ),
    "a counter": (
        lambda s: s["counters"].update(step="x"),
        r"counters\.step must be a whole number >= 0, got 'x'",
    ),
}


@pytest.mark.parametrize("what", SPOILT)
def test_what_does_not_fit_is_named_and_nothing_has_changed(what: str) -> None:
    """Moments that are too short would have a fused kernel write beyond their end."""
    spoil, line = SPOILT[what]
    state = copy.deepcopy(trained(6).state_dict())
    spoil(state)
    run = trained()
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    with pytest.raises(ValueError, match=line):
        run.load_state_dict(state)
    assert all(torch.equal(before[name], tensor) for name, tensor in run.model.state_dict().items())
    assert run.step == 4


def test_a_file_of_a_later_format_is_refused_and_left_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "checkpoints" / "step-00000002.ckpt"
    path.parent.mkdir()
    checkpoint.save(path, {"step": 2})
    content = bytearray(path.read_bytes())
    content[len(checkpoint.MAGIC)] += 1
    path.write_bytes(content)
    with pytest.raises(checkpoint.NewerCheckpoint, match="format 3, this version reads 2; update"):
        checkpoint.load_newest(tmp_path)
    assert path.exists()


def test_other_settings_hold_from_here_on_and_the_moments_stay() -> None:
    horizon = Horizon(40, 4, 10)

    def parts(lr: float, weight_decay: float) -> tuple[torch.optim.Optimizer, Any]:
        weight = nn.Parameter(torch.ones(2))
        weight.grad = torch.ones(2)
        optimizer = torch.optim.SGD([weight], lr, momentum=0.9, weight_decay=weight_decay)
        return optimizer, cosine(optimizer, horizon, interval="step")

    (old, schedule), (new, other) = parts(0.1, 0.0), parts(0.4, 0.5)
    for _ in range(25):
        old.step()
        schedule.step_ended()
    with reconfigured(other, new, 25, horizon.per_epoch):
        new.load_state_dict(copy.deepcopy(old.state_dict()))
        other.load_state_dict(schedule.state_dict())
    group = new.param_groups[0]
    assert group["weight_decay"] == 0.5
    for _ in range(15):
        assert group["lr"] == pytest.approx(4 * old.param_groups[0]["lr"], rel=1e-12)
        schedule.step_ended()
        other.step_ended()
    momenta = [next(iter(o.state.values()))["momentum_buffer"] for o in (old, new)]
    assert torch.equal(*momenta)


def test_a_learning_rate_that_is_allowed_to_differ_is_the_one_trained_with(
    command: Callable[..., Outcome],
) -> None:
    assert command(*SMALL, "scheduler=none", "checkpoint.every_steps=4", "hydra.run.dir=run").code == 0
    Path("run/summary.json").unlink()
    Path("run/checkpoints/step-00000008.ckpt").unlink()
    changes = ["optimizer.lr=0.02", "optimizer.weight_decay=0.5"]
    allowed = "resume_allow=[optimizer.lr,optimizer.weight_decay]"
    assert command("resume=run", *changes, allowed).code == 0
    (path,) = Path("run/checkpoints").glob("step-00000008.ckpt")
    groups = checkpoint.load(path)["optimizer"]["param_groups"]
    assert {group["lr"] for group in groups} == {0.02}
    assert groups[0]["weight_decay"] == 0.5

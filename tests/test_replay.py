"""Replay: the verdict on faults planted in the data, in the weights and in a custom operation."""

from __future__ import annotations

import doctest
import json
from typing import Any

import pytest
import torch
from conftest import SMALL, Outcome
from torch import Tensor, nn

import trainer.diagnostics.replay as replay_module
from models.rnn import RNN
from trainer.data.tensors import Batch
from trainer.diagnostics.replay import replay
from trainer.guard import Skip
from trainer.precision import Precision
from trainer.scaler import Scaler


class Root(torch.autograd.Function):
    """√x by hand, whose gradient at 0 is inf."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.sqrt()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient / (2 * x.sqrt())


class Custom(nn.Module):
    """√|x|; with ``fails``, NaN at that call alone."""

    def __init__(self, fails: int = 0) -> None:
        super().__init__()
        self.fails, self.calls = fails, 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * torch.nan if self.calls == self.fails else Root.apply(x.abs())  # type: ignore


def net(fails: int = 0) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 4, bias=False), Custom(fails), nn.Linear(4, 1))


def steps(count: int, spoil: Any = None) -> list[list[Batch]]:
    generator = torch.Generator().manual_seed(0)
    found = [[(torch.randn(8, 3, generator=generator), torch.zeros(8, 1))] for _ in range(count)]
    if spoil is not None:
        spoil(*found[0][0])
    return found


def test_the_example_in_the_documentation_runs() -> None:
    result = doctest.testmod(replay_module, extraglobs={"torch": torch})
    assert result.failed == 0 < result.attempted


def test_a_fault_in_the_inputs_is_the_data() -> None:
    def spoil(inputs: Tensor, targets: Tensor) -> None:
        inputs[5, 1] = torch.nan

    model, (bad, *others) = net(), steps(3, spoil)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    verdict = replay(model, nn.MSELoss(), bad, others, net().state_dict())
    assert (verdict.kind, verdict.samples, verdict.tensors) == ("data", [5], [])
    assert verdict.origin is not None
    assert verdict.origin.module == "0 (BatchNorm1d)"
    assert "with these weights 0 of 2 other steps is refused too" in verdict.lines
    assert "with earlier weights the same batch is refused too" in verdict.lines
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())


def test_a_fault_in_a_target_is_the_data_too() -> None:
    def spoil(inputs: Tensor, targets: Tensor) -> None:
        targets[2] = torch.inf

    bad, *others = steps(3, spoil)
    verdict = replay(net(), nn.MSELoss(), bad, others)
    assert (verdict.kind, verdict.samples) == ("data", [2])
    assert any("its target holds NaN or inf" in line for line in verdict.lines)


def test_a_fault_in_the_weights_is_the_state() -> None:
    model, (bad, *others) = net(), steps(3)
    with torch.no_grad():
        model[1].weight[0, 0] = torch.nan  # type: ignore[index]
    verdict = replay(model, nn.MSELoss(), bad, others, net().state_dict())
    assert (verdict.kind, verdict.samples, verdict.tensors) == ("state", [], ["1.weight"])
    assert str(verdict.origin) == "linear in 1 (Linear) was given NaN, which is in 1.weight"
    assert "with earlier weights the same batch is in order" in verdict.lines


def test_weights_that_are_finite_and_huge_are_the_state() -> None:
    model, (bad, *others) = net(), steps(3)
    nn.init.constant_(model[3].weight, 1e30)  # type: ignore[arg-type]
    verdict = replay(model, nn.MSELoss(), bad, others)
    assert verdict.kind == "state"
    assert "all weights are finite; the largest number is 1.00e+30, in 3.weight" in verdict.lines


def test_a_custom_operation_that_certain_data_break_is_named() -> None:
    model, (bad, *others) = net()[1:], steps(3)
    bad[0][0][3] = 0.0
    verdict = replay(model, nn.MSELoss(), bad, others)
    assert (verdict.kind, verdict.samples) == ("data", [3])
    assert verdict.origin is not None
    assert (verdict.origin.operation, verdict.origin.module) == ("RootBackward", "2 (Custom)")


def test_a_custom_operation_that_fails_by_itself_is_not_reproducible() -> None:
    """It failed in the run, at its first call; taken again, the step is in order."""
    model, (bad, *others) = net(fails=1), steps(3)
    assert nn.MSELoss()(model(bad[0][0]), bad[0][1]).isnan()
    verdict = replay(model, nn.MSELoss(), bad, others)
    assert (verdict.kind, verdict.origin) == ("not reproducible", None)


def test_a_spike_is_held_against_the_limits_that_refused_it() -> None:
    guard = Skip(window=32)
    for _ in range(32):
        guard.settle(1.0, 1.0, False)

    def spoil(inputs: Tensor, targets: Tensor) -> None:
        targets[6] = 1e3

    bad, *others = steps(3, spoil)
    verdict = replay(net(), nn.MSELoss(), bad, others, refuses=guard.judge)
    assert (verdict.kind, verdict.samples, verdict.origin) == ("data", [6], None)
    assert not any("earlier" in line for line in verdict.lines)


def test_texts_and_recurrent_layers_can_be_replayed() -> None:
    def loss(logits: Tensor, tokens: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits, tokens) / (tokens[:, 0] != 0).all()

    tokens = torch.randint(1, 7, (3, 4, 5), generator=torch.Generator().manual_seed(0))
    tokens[0, 2, 0] = 0
    bad, *others = [[(batch, batch)] for batch in tokens]
    verdict = replay(RNN((5,), (7, 5), width=4), loss, bad, others)
    assert (verdict.kind, verdict.samples) == ("data", [2])


def test_gradients_too_small_for_float16_are_scaled_as_in_the_run() -> None:
    """Their norm without the scale is what float16 leaves of them: nothing."""
    model, (batch,) = nn.Linear(3, 1), steps(1)
    cpu = torch.device("cpu")
    small = lambda p, t: 1e-9 * nn.functional.mse_loss(p, t)  # noqa: E731
    half, refuses = Precision("fp16", cpu), lambda *values: True
    found = [
        replay(model, small, batch, refuses=refuses, precision=half, scaler=scaler)
        for scaler in (None, Scaler(cpu))
    ]
    whole = replay(model, small, batch, refuses=refuses)
    assert found[0].norm == 0
    assert found[1].norm == pytest.approx(whole.norm, rel=0.01)


def test_from_the_command_line(command: Any) -> None:
    done: Outcome = command(*SMALL, "fault=nan_batch")
    assert done.code == 0
    (folder,) = done.run_folders
    assert f"python train.py task=replay resume={folder.relative_to(done.folder)}" in done.out
    done = command("task=replay", f"resume={folder}")
    assert done.code == 0
    assert ": data" in done.out
    assert "sample 0 of 32: its input holds NaN or inf" in done.out
    (step,) = json.loads((folder / "replay.json").read_text())["steps"]
    assert (step["kind"], step["samples"], step["loss"]) == ("data", [0], None)
    assert json.loads((folder / "summary.json").read_text())["status"] == "completed"
    (path,) = (folder / "refused").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    done = command("task=replay", f"resume={folder}")
    assert done.code == 1
    assert "passed over" in done.out
    path.unlink()
    done = command("task=replay", f"resume={folder}")
    assert done.code == 2
    assert "must have a folder refused/ with a step in it" in done.err

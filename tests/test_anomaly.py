"""The first operation that makes a NaN or inf, and its module, wherever the fault was planted."""

from __future__ import annotations

import doctest
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import SMALL, Outcome
from torch import Tensor, nn

import trainer.diagnostics.anomaly as anomaly_module
from models.transformer import Transformer
from trainer.data.random import random_regression
from trainer.diagnostics.anomaly import Anomaly, find_anomaly
from trainer.loop import Trainer


class Call(nn.Module):
    """A function as a module."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(x)


class Steep(torch.autograd.Function):
    """x, with a gradient of inf where x is above 1."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return torch.where(x > 1, torch.inf, gradient)


def net(middle: Any) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), Call(middle), nn.Linear(4, 2))


def found(model: nn.Module, inputs: Tensor | None = None, loss: Any = None) -> str:
    inputs = torch.ones(2, 3) if inputs is None else inputs
    return str(find_anomaly(model, loss or nn.MSELoss(), inputs, torch.zeros(2, 2)))


def test_the_example_in_the_documentation_runs() -> None:
    result = doctest.testmod(anomaly_module, extraglobs={"torch": torch})
    assert result.failed == 0 < result.attempted


def test_nothing_is_said_of_a_step_that_is_sound() -> None:
    model = net(torch.tanh)
    assert find_anomaly(model, nn.MSELoss(), torch.ones(2, 3), torch.zeros(2, 2)) is None
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_an_operation_that_makes_it_from_finite_numbers() -> None:
    assert found(net(lambda x: torch.log(-x.abs()))) == (
        "the loss is NaN: log in 1 (Call) returned NaN from finite inputs"
    )
    assert found(net(torch.tanh), loss=lambda p, t: (p / t).mean()).endswith(
        "__truediv__ in no module returned inf from finite inputs"
    ) or "div in no module" in found(net(torch.tanh), loss=lambda p, t: (p / t).mean())


def test_an_operation_that_only_fails_on_the_way_back() -> None:
    assert found(net(lambda x: torch.sqrt(x * 0))) == (
        "the loss is finite, its gradient is NaN: SqrtBackward0 in 1 (Call) returned inf on the way back"
    )
    assert "SteepBackward in 1 (Call) returned inf" in found(net(lambda x: Steep.apply(x.abs() + 2)))


def test_a_batch_or_a_weight_that_already_holds_it() -> None:
    spoiled = torch.ones(2, 3)
    spoiled[1, 2] = torch.nan
    assert found(net(torch.tanh), spoiled).endswith(
        "linear in 0 (Linear) was given NaN, which came in with the batch"
    )
    model = net(torch.tanh)
    nn.init.constant_(model[2].weight, torch.inf)
    assert "linear in 2 (Linear) was given inf, which is in 2.weight" in found(model)


def test_a_mask_of_minus_infinity_is_no_anomaly() -> None:
    model = Transformer((6,), (11, 6), width=8, depth=1, heads=2)
    tokens = torch.randint(11, (2, 6))
    assert find_anomaly(model, nn.CrossEntropyLoss(), tokens, tokens) is None
    masked = net(
        lambda x: x.masked_fill(x > 0, -torch.inf).softmax(-1).nan_to_num() + torch.log(x * 0 - 1)
    )
    assert "log in 1 (Call) returned NaN" in found(masked)


def test_a_run_ends_as_failed_with_one_line_and_its_state_intact(tmp_path: Path) -> None:
    calls = 0

    def failing(x: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        return torch.log(-x.abs()) if calls == 4 else x

    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), Call(failing), nn.Linear(3, 1))
    data = random_regression(samples=32, features=4, targets=1, batch_size=8, val_samples=0)
    run = Trainer(
        model, nn.MSELoss(), torch.optim.SGD(model.parameters(), 0.1), max_epochs=2, detect_anomaly=True
    )
    summary = run.fit(data, tmp_path)
    assert (summary["status"], summary["steps"]) == ("failed", 3)
    assert summary["reason"] == "the loss is NaN: log in 2 (Call) returned NaN from finite inputs"
    assert all(tensor.isfinite().all() for tensor in model.state_dict().values())
    assert (tmp_path / "checkpoints" / "step-00000003.ckpt").exists()


def test_a_run_that_is_looked_at_is_the_same_run() -> None:
    weights = []
    for looked_at in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 1))
        data = random_regression(samples=32, features=4, targets=1, batch_size=8)
        optimizer = torch.optim.Adam(model.parameters(), 0.1)
        run = Trainer(model, nn.MSELoss(), optimizer, max_epochs=2, detect_anomaly=looked_at)
        assert run.fit(data)["status"] == "completed"
        weights.append(torch.cat([parameter.flatten() for parameter in model.parameters()]))
    assert torch.equal(*weights)


def test_it_is_not_for_a_compiled_model() -> None:
    model = nn.Linear(1, 1)
    with pytest.raises(ValueError, match="detect_anomaly must be false for a compiled model"):
        Trainer(
            model,
            nn.MSELoss(),
            torch.optim.SGD(model.parameters(), 1),
            compile=True,
            detect_anomaly=True,
        )


def test_from_the_command_line_it_exits_with_1(command: Any) -> None:
    done: Outcome = command(*SMALL, "fault=nan_batch", "trainer.detect_anomaly=true")
    assert done.code == 1
    (folder,) = done.run_folders
    reason = json.loads((folder / "summary.json").read_text())["reason"]
    assert "(Linear) was given NaN, which came in with the batch" in reason
    assert reason.split(":")[0] in done.out
    assert "Traceback" not in done.err
    assert issubclass(Anomaly, Exception)

"""The loss scale: what it divides by it multiplied by, and an overflow is its own affair."""

from __future__ import annotations

import copy
import doctest
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from test_transaction import FUSED, build_optimizer
from torch import Tensor, nn

from trainer import checkpoint, scaler
from trainer.checkpoint import Checkpoints
from trainer.clipping import ClipByNorm
from trainer.closing import facts
from trainer.data.tensors import TensorData
from trainer.guard import Off, Skip
from trainer.loop import Trainer
from trainer.scaler import Scaler

CPU = torch.device("cpu")


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 1))


def data(size: float = 1.0, batches: int = 10) -> TensorData:
    """Targets of this size, which is that of the gradient."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4 * batches, 3, generator=generator)
    return TensorData((x, size * x[:, :1]), (x, x[:, :1]), batch_size=4)


def trainer(model: nn.Module | None = None, optimizer: Any = None, **settings: Any) -> Trainer:
    model = model or net()
    optimizer = optimizer or torch.optim.AdamW(model.parameters(), 0.01, fused=True)
    return Trainer(model, nn.MSELoss(), optimizer, precision="fp16", **{"log_every": 2, **settings})


def state(run: Trainer) -> list[Tensor]:
    moments = [value for entry in run.optimizer.state.values() for value in entry.values()]
    return [*copy.deepcopy(run.model.state_dict()).values(), *copy.deepcopy(moments)]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_only_float16_needs_one() -> None:
    needs = {name for name in ("fp64", "fp32", "bf16", "fp16") if Scaler.of(name, CPU)}
    assert needs == {"fp16"}


def test_a_gradient_scaled_and_unscaled_is_to_the_bit_what_it_was() -> None:
    model, scaled = net(), Scaler(CPU)
    x, y = data().train
    found = []
    for factor in (lambda loss: loss, scaled.up):
        torch.manual_seed(0)
        gradients = torch.autograd.grad(factor(nn.MSELoss()(model(x), y)), list(model.parameters()))
        found.append(list(gradients))
    assert not same(*found)
    scaled.down(found[1])
    assert same(*found)


def test_a_gradient_that_float16_would_lose_arrives() -> None:
    def gradient(precision: str) -> float:
        model = nn.Linear(1, 1, bias=False)
        nn.init.constant_(model.weight, 0.5)
        run = Trainer(model, nn.MSELoss(), torch.optim.SGD(model.parameters(), 0.1), precision=precision)
        batch = torch.full((4, 1), 1e-4), torch.zeros(4, 1)
        return run.gradients([batch])[2][0].item()

    assert gradient("fp32") == pytest.approx(1e-8, rel=1e-6)
    assert gradient("fp16") == pytest.approx(1e-8, rel=2e-3)


def test_it_doubles_after_an_interval_and_halves_after_an_overflow() -> None:
    scaled, one, inf = Scaler(CPU, interval=3), torch.tensor(1.0), torch.tensor(math.inf)
    scales = []
    for norm in (one, one, one, one, inf, one, inf):
        assert scaled.judge(one, norm) == (norm is inf)
        scales.append(scaled.scale.item() / 2**16)
    assert scales == [1, 1, 2, 2, 1, 1, 0.5]


@pytest.mark.parametrize(("loss", "norm"), [(math.inf, math.inf), (math.nan, math.nan), (1.0, 1e30)])
def test_a_loss_that_is_not_finite_and_a_large_gradient_are_not_its_affair(
    loss: float, norm: float
) -> None:
    scaled = Scaler(CPU)
    assert scaled.judge(torch.tensor(loss), torch.tensor(norm)) is False
    assert scaled.scale.item() == 2**16


def test_it_follows_torchs_own_step_for_step() -> None:
    """Scale, losses and weights of `torch.amp.GradScaler`, through overflows, growth and clipping."""
    models = [nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    ours = torch.optim.SGD(models[0].parameters(), 0.1, momentum=0.9)
    run = trainer(models[0], ours, clip=ClipByNorm(1.0), max_epochs=4, guard=Off())
    assert run.scaler is not None
    run.scaler.interval = 5
    optimizer = torch.optim.SGD(models[1].parameters(), 0.1, momentum=0.9)
    theirs = torch.amp.GradScaler("cpu", init_scale=2.0**16, growth_interval=5)
    scales = []
    torch.manual_seed(0)
    for epoch in range(4):
        for inputs, targets in data(300.0).batches(epoch):
            with torch.autocast("cpu", dtype=torch.float16):
                loss = nn.functional.mse_loss(models[1](inputs), targets)
            optimizer.zero_grad()
            theirs.scale(loss).backward()
            theirs.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(models[1].parameters(), 1.0)
            theirs.step(optimizer)
            theirs.update()
            scales.append(theirs.get_scale())
    run.fit(data(300.0))
    assert min(scales) < max(scales) < 2**16
    assert run.scaler.scale.item() == scales[-1]
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("ahead", [False, True], ids=["known", "ahead"])
@pytest.mark.parametrize("guard", [Skip(max_consecutive=0), Off()], ids=["stop", "off"])
@pytest.mark.parametrize("path", FUSED, ids=lambda path: path.stem)
def test_an_overflow_is_refused_bit_for_bit_and_not_the_guards(
    path: Path, guard: Any, ahead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if ahead:
        monkeypatch.setattr(Tensor, "is_cpu", property(lambda tensor: False))
    model = net()
    parameters = list(model.parameters())
    run = trainer(model, build_optimizer(path, parameters), guard=copy.deepcopy(guard), max_steps=2)
    run.runs_ahead = ahead
    run.fit(data(0.01))
    committed, before = state(run), run.scaler.state_dict()
    run.limits = (None, 3)
    summary = run.fit(data(1e6))
    assert same(committed, state(run))
    assert (summary["status"], summary["steps"], summary["guard"]["skipped"]) == ("completed", 3, 0)
    assert summary["scaler"]["overflows"] == before["overflows"] + 1
    assert summary["scaler"]["scale"] == before["scale"] / 2


def test_what_is_not_finite_at_any_scale_comes_to_the_guard() -> None:
    class Root(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + (0 * self.bias).sqrt()  # its slope is infinite

    run = trainer(Root(3, 1), guard=Skip(max_consecutive=2), max_epochs=9)
    summary = run.fit(data())
    assert (summary["status"], summary["steps"]) == ("diverged", 16 + 3)
    assert summary["scaler"] == {"scale": 1.0, "good": 3, "overflows": 16}
    assert summary["guard"]["causes"]["non-finite gradient"] == 3


def test_overflows_stand_in_record_summary_and_table_beside_the_guards(tmp_path: Path) -> None:
    run = trainer(max_epochs=2)
    summary = run.fit(data(300.0), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    overflows = [line["scaler/overflows"] for line in lines]
    assert overflows[-1] == summary["scaler"]["overflows"] == run.scaler.overflows > 1
    assert overflows == sorted(overflows)
    assert lines[-1]["scaler/scale"] == summary["scaler"]["scale"] == 2.0 ** (16 - overflows[-1])
    assert {line["guard/skipped"] for line in lines} == {0}
    rows = dict(zip(*(column.cells for column in facts(summary).columns), strict=True))
    assert str(rows["loss scale"]).endswith(
        f"{overflows[-1]} updates skipped because float16 overflowed"
    )
    assert "guard" not in rows
    other = Trainer(net(), nn.MSELoss(), torch.optim.SGD(net().parameters(), 0.1), max_epochs=1)
    assert "scaler" not in other.ledger.standing()


@pytest.mark.parametrize("cut", [1, 3, 8])
def test_a_run_cut_anywhere_and_continued_ends_the_same(tmp_path: Path, cut: int) -> None:
    def started(folder: str, start: dict[str, Any] | None = None) -> Trainer:
        saves = Checkpoints(every_steps=cut, every_seconds=None, keep=100)
        run = trainer(accumulate=2, clip=ClipByNorm(1.0), max_epochs=3, checkpoints=saves)
        run.scaler.interval = 2
        if start is not None:
            run.load_state_dict(start)
        run.fit(data(30.0), tmp_path / folder)
        return run

    whole = started("whole")
    path = tmp_path / "whole" / "checkpoints" / f"step-{cut:08d}.ckpt"
    continued = started("rest", checkpoint.load(path))
    assert same(state(whole), state(continued))
    assert whole.scaler.state_dict() == continued.scaler.state_dict()
    assert whole.scaler.overflows > 1
    assert whole.scaler.scale.item() > 2.0 ** (16 - whole.scaler.overflows)  # it has grown too


def test_a_detector_of_anomalies_would_stop_at_the_first_overflow() -> None:
    with pytest.raises(
        ValueError, match=r"^detect_anomaly must be false under precision=fp16, .*=bf16$"
    ):
        trainer(detect_anomaly=True)


def test_the_example_in_the_documentation_runs() -> None:
    result = doctest.testmod(scaler)
    assert (result.failed, result.attempted) == (0, 3)

"""Diagnostics in a run: they change nothing, know nothing of refused steps, and are resumed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from states import equal
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor, nn

from losses.combined import CombinedLoss
from losses.uncertainty import UncertaintyLoss
from trainer import checkpoint
from trainer.checkpoint import Checkpoints
from trainer.clipping import ClipByValue
from trainer.data.tensors import TensorData
from trainer.diagnostics import Diagnostics
from trainer.guard import Skip
from trainer.loop import Trainer
from trainer.tensorboard import TensorBoard

LAYERS = [f"layers/{n}/{w}" for n in "03" for w in ("grad_norm", "weight_norm", "update_ratio")]


def data(bad: int | None = None) -> TensorData:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(40, 3, generator=generator)
    y = x.sum(1, keepdim=True)
    if bad is not None:
        y[bad] = 1e38
    return TensorData((x, y), (x[:9], y[:9]), batch_size=8)


def full(**changes: Any) -> Diagnostics:
    return Diagnostics(
        **({"every": 1, "parameters": True, "histograms": True, "shares": True} | changes)
    )


def trainer(diagnostics: Diagnostics | None, **settings: Any) -> Trainer:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1))
    loss = settings.pop("loss", CombinedLoss())
    optimizer = torch.optim.Adam([*model.parameters(), *loss.parameters()], 0.05, fused=True)
    settings = {"log_every": 3, "max_epochs": None, "max_steps": 20, "device": "cpu"} | settings
    return Trainer(model, loss, optimizer, diagnostics=diagnostics, **settings)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def inside(line: dict[str, Any]) -> set[str]:
    groups = ("layers/", "activations/", "parameters/", "grad/cosine", "train/share/")
    return {tag for tag in line if tag.startswith(groups)}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_that_is_watched_is_the_same_run_bit_for_bit(tmp_path: Path, accumulate: int) -> None:
    runs = {}
    for name, diagnostics in {"off": None, "light": Diagnostics(every=2), "full": full()}.items():
        runs[name] = trainer(diagnostics, accumulate=accumulate, clip=ClipByValue(0.01))
        runs[name].fit(data(), tmp_path / name)
    plain = runs["off"].model.state_dict()
    for name in ("light", "full"):
        for key, value in runs[name].model.state_dict().items():
            assert torch.equal(plain[key], value), (name, key)
        for watched, bare in zip(lines(tmp_path / name), lines(tmp_path / "off"), strict=True):
            assert {tag: watched[tag] for tag in watched if tag not in inside(watched)} == bare
    sampled = [line["step"] for line in lines(tmp_path / "light") if inside(line)]
    assert sampled == [3, 9, 15, 20]
    assert set(LAYERS) <= inside(lines(tmp_path / "light")[0])
    last = lines(tmp_path / "full")[-1]
    assert {"activations/1/dead", "parameters/3.bias/grad_max", "train/share/mse"} <= inside(last)
    assert 0 < last["grad/cosine"] < 1  # value clipping turns the gradient
    assert not inside(lines(tmp_path / "off")[-1])


def test_the_gradient_norms_are_those_before_clipping(tmp_path: Path) -> None:
    trainer(full(), log_every=1, clip=ClipByValue(1e-3)).fit(data(), tmp_path)
    for line in lines(tmp_path):
        norm = math.hypot(line["layers/0/grad_norm"], line["layers/3/grad_norm"])
        assert norm == pytest.approx(line["grad/norm"], rel=1e-4)
        names = ("0.weight", "0.bias", "3.weight", "3.bias")
        largest = max(line[f"parameters/{name}/grad_max"] for name in names)
        assert 0 < largest <= line["grad/norm"]


def test_the_clip_is_put_down_to_the_layers_the_gradient_is_long_in(tmp_path: Path) -> None:
    summary = trainer(Diagnostics(every=1), log_every=1, clip=ClipByValue(1e-3)).fit(data(), tmp_path)
    recorded = lines(tmp_path)
    squares = {n: [line[f"layers/{n}/grad_norm"] ** 2 for line in recorded] for n in "03"}
    expected = [
        sum(own / (own + other) for own, other in zip(squares[a], squares[b], strict=True))
        / len(recorded)
        for a, b in ("03", "30")
    ]
    culprits = summary["diagnostics"]["clipped_by"]
    assert [culprits[name] for name in "03"] == pytest.approx(expected, rel=1e-4)
    assert summary["diagnostics"]["warnings"] == {"count": 0, "first": []}
    assert trainer(None).fit(data())["diagnostics"] == {}


@pytest.fixture(params=[False, True], ids=["waits", "runs ahead"])
def ahead(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param:  # whatever asks gets the answer that it would get on CUDA
        monkeypatch.setattr(Tensor, "is_cpu", property(lambda tensor: False))
    return bool(request.param)


def test_a_refused_step_is_not_recorded(tmp_path: Path, ahead: bool) -> None:
    run = trainer(full(), log_every=1, guard=Skip(max_consecutive=9), max_steps=15)
    run.runs_ahead = ahead
    run.fit(data(bad=5), tmp_path)
    recorded = lines(tmp_path)
    empty = [line["step"] for line in recorded if not set(LAYERS) & line.keys()]
    assert len(empty) == run.guard.skipped == 3  # once in each epoch
    assert all(math.isfinite(line[tag]) for line in recorded for tag in inside(line))


def test_a_resumed_run_records_what_it_would_have(tmp_path: Path) -> None:
    saves = Checkpoints(every_steps=7, every_seconds=None, keep=9)
    whole = trainer(Diagnostics(every=2), log_every=1, checkpoints=saves)
    whole.fit(data(), tmp_path / "whole")
    rest = trainer(Diagnostics(every=2), log_every=1)
    rest.load_state_dict(checkpoint.load(tmp_path / "whole" / "checkpoints" / "step-00000007.ckpt"))
    rest.fit(data(), tmp_path / "rest")
    assert lines(tmp_path / "rest") == lines(tmp_path / "whole")[7:]
    assert equal(rest.diagnostics.state_dict(), whole.diagnostics.state_dict())


def test_parameters_of_the_loss_are_a_layer(tmp_path: Path) -> None:
    loss = UncertaintyLoss({"l1": nn.L1Loss(), "mse": nn.MSELoss()})
    trainer(Diagnostics(every=1), loss=loss).fit(data(), tmp_path)
    assert "layers/loss/update_ratio" in lines(tmp_path)[-1]


def test_histograms_are_in_tensorboard_only(tmp_path: Path) -> None:
    board = TensorBoard(tmp_path)
    trainer(full()).fit(data(), tmp_path, [board])
    board.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert {"weights/0.weight", "gradients/3.bias"} <= set(events.Tags()["histograms"])
    assert {*LAYERS, "activations/3/std"} <= set(events.Tags()["scalars"])
    assert events.Histograms("weights/0.weight")[-1].histogram_value.num == 24
    assert not any(tag.startswith("weights/") for tag in lines(tmp_path)[-1])


def test_a_layer_that_runs_off_is_said_before_the_loss_shows_it(tmp_path: Path) -> None:
    """One layer's learning rate is multiplied at step 60; the loss of that step is still the old one."""

    class Ear:
        def __init__(self) -> None:
            self.heard: list[str] = []

        def scalars(self, *shown: Any) -> None: ...
        def histograms(self, *shown: Any) -> None: ...
        def note(self, line: str) -> None:
            self.heard.append(line)

    torch.manual_seed(0)
    model, ear = nn.Sequential(nn.Linear(3, 8), nn.Linear(8, 1)), Ear()
    groups = [{"params": layer.parameters()} for layer in model]
    optimizer = torch.optim.SGD(groups, 1e-4)
    run = Trainer(
        model,
        nn.MSELoss(),
        optimizer,
        scheduler=torch.optim.lr_scheduler.LambdaLR(
            optimizer, [lambda epoch: 1.0, lambda epoch: 1e3 if epoch >= 60 else 1.0]
        ),
        diagnostics=Diagnostics(every=1),
        log_every=1,
        max_epochs=70,
        guard=Skip(max_consecutive=99),
        device="cpu",
    )
    source = data()
    source.batches_per_epoch = 1  # so that the schedule moves with each step
    summary = run.fit(source, tmp_path, [ear])
    (line,) = ear.heard
    assert line.startswith("step 61: the update of 1 is ")
    assert summary["diagnostics"]["warnings"]["first"][0]["step"] == 61
    recorded = [line["train/loss"] for line in lines(tmp_path) if "train/loss" in line]
    assert recorded[60] < 3 * max(recorded[:60])

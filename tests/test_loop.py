"""The loop: it learns, repeats itself bit for bit, can be cut anywhere, and ends as it should."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from states import equal
from torch import Tensor, nn

from losses.combined import CombinedLoss
from trainer import checkpoint
from trainer.checkpoint import Checkpoints
from trainer.clipping import ClipByNorm, ClipByValue, NoClip
from trainer.data.tensors import TensorData
from trainer.loop import Trainer
from trainer.metrics import Metric
from trainer.schedulers import Horizon, cosine, plateau


def net(width: int = 8) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(3, width), nn.BatchNorm1d(width), nn.Dropout(0.2), nn.Linear(width, 1)
    )


def linear(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    return nn.Linear(3, 1, dtype=dtype)


def data(batch_size: int = 8, samples: int = 40) -> TensorData:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(samples, 3, generator=generator)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]])
    error = Metric(lambda p, t: (p - t).square().flatten(1).mean(1), higher_is_better=False)
    return TensorData((x, y), (x[:9], y[:9]), batch_size=batch_size, metrics={"mse": error})


def trainer(model: nn.Module, **changes: Any) -> Trainer:
    settings: dict[str, Any] = {"clip": ClipByNorm(1.0), "max_epochs": 4, "log_every": 3}
    optimizer = torch.optim.Adam(model.parameters(), 0.05, fused=True)
    return Trainer(model, changes.pop("loss", nn.MSELoss()), optimizer, **(settings | changes))


@pytest.mark.parametrize("clip", [NoClip(), ClipByNorm(1.0), ClipByValue(0.5)])
def test_it_learns_a_linear_map(clip: Any) -> None:
    summary = trainer(linear(), clip=clip, max_epochs=60).fit(data())
    assert summary["status"] == "completed"
    assert summary["metrics"]["val/loss"]["last"] < 1e-3 < 1 < summary["metrics"]["val/loss"]["first"]


def test_two_runs_are_the_same_bit_for_bit(tmp_path: Path) -> None:
    runs = [trainer(net()) for _ in range(2)]
    for index, run in enumerate(runs):
        run.fit(data(), tmp_path / str(index))
    assert equal(runs[0].state_dict(), runs[1].state_dict())
    lines = [(tmp_path / str(index) / "metrics.jsonl").read_bytes() for index in range(2)]
    assert lines[0] == lines[1] != b""


@pytest.mark.parametrize("cut", [1, 2, 3, 4, 5, 7, 12, 19])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_cut_anywhere_and_continued_ends_the_same(
    tmp_path: Path, cut: int, accumulate: int
) -> None:
    def run(folder: str, start: dict[str, Any] | None, **limits: Any) -> Trainer:
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
        schedule = cosine(optimizer, Horizon(20 // accumulate, 4, 5))
        part = Trainer(
            model,
            CombinedLoss(),
            optimizer,
            clip=ClipByNorm(0.5),
            scheduler=schedule,
            accumulate=accumulate,
            log_every=3,
            **limits,
        )
        if start is not None:
            part.load_state_dict(start)
        part.fit(data(), tmp_path / folder)
        return part

    whole = run("whole", None, max_epochs=4)
    saves = Checkpoints(every_steps=cut, every_seconds=None, keep=100)
    run("cut", None, max_epochs=4, checkpoints=saves)
    path = tmp_path / "cut" / "checkpoints" / f"step-{cut:08d}.ckpt"
    if cut >= whole.step:
        pytest.skip("with accumulation the run has fewer steps than that")
    continued = run("rest", checkpoint.load(path), max_epochs=4)
    assert equal(whole.state_dict(), continued.state_dict())
    lines = (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()
    later = [line for line in lines if json.loads(line)["step"] > cut]
    assert (tmp_path / "rest" / "metrics.jsonl").read_text().splitlines() == later


def test_every_part_with_state_is_in_the_checkpoint(tmp_path: Path) -> None:
    run = trainer(net(), loss=CombinedLoss())
    run.fit(data(), tmp_path)
    (path,) = (tmp_path / "checkpoints").iterdir()
    saved = checkpoint.load(path)
    stateful = {name for name, part in vars(run).items() if hasattr(part, "state_dict")}
    assert stateful - {"forward"} <= saved.keys()
    assert path.name == "step-00000020.ckpt"


@pytest.mark.parametrize("clip", [NoClip(), ClipByNorm(0.1), ClipByValue(0.01)])
@pytest.mark.parametrize("accumulate", [2, 4])
def test_accumulating_batches_equals_one_batch_as_large(clip: Any, accumulate: int) -> None:
    runs = []
    for size, times in ((8, accumulate), (8 * accumulate, 1)):
        model = linear(torch.float64)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        run = Trainer(
            model,
            nn.MSELoss(),
            optimizer,
            clip=clip,
            accumulate=times,
            max_epochs=3,
            precision="fp64",
        )
        run.fit(data(size, samples=44))  # 44 leaves a last batch that is smaller
        runs.append(run)
    assert runs[0].step == runs[1].step
    for a, b in zip(runs[0].model.parameters(), runs[1].model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_the_norm_is_recorded_before_and_after_clipping(tmp_path: Path) -> None:
    trainer(linear(), clip=ClipByNorm(0.25), log_every=1, max_epochs=1).fit(data(), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    for line in lines:
        assert line["grad/norm"] > 0.25
        assert line["grad/norm_clipped"] == pytest.approx(0.25, rel=1e-5)
        assert line["grad/clipped"] == 1
        assert line["grad/threshold"] == 0.25
    assert set(lines[-1]) >= {"val/loss", "val/mse", "lr", "guard/skipped", "train/loss", "epoch"}


def test_the_terms_of_a_loss_are_recorded_by_name() -> None:
    summary = trainer(linear(), loss=CombinedLoss(0.7, 0.3, 0.05), max_epochs=1).fit(data())
    last = {tag: values["last"] for tag, values in summary["metrics"].items()}
    mix = sum(w * last[f"train/loss/{t}"] for w, t in ((0.7, "l1"), (0.3, "smooth_l1"), (0.05, "mse")))
    assert last["train/loss"] == pytest.approx(mix, rel=1e-6)


def test_max_steps_ends_in_the_middle_of_an_epoch_and_still_validates() -> None:
    summary = trainer(linear(), max_epochs=None, max_steps=7).fit(data())
    assert (summary["steps"], summary["epochs"]) == (7, 2)
    assert "val/loss" in summary["metrics"]


@pytest.mark.parametrize("limits", [{"max_epochs": 0}, {"max_steps": 0}, {"max_epochs": None}])
def test_a_run_without_an_end_is_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"^max_(epochs|steps) must be"):
        trainer(linear(), **limits)


def test_too_many_bad_steps_end_the_run_as_diverged_with_finite_weights() -> None:
    class Breaks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.calls = nn.Linear(3, 1), 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += self.training
            return self.layer(x) * (math.nan if self.calls > 6 else 1.0)

    model = Breaks()
    run = trainer(model, max_epochs=100)
    summary = run.fit(data())
    assert summary["status"] == "diverged"
    assert summary["steps"] == 6 + 21
    assert summary["guard"]["skipped"] == 21
    assert summary["objective"]["value"] == math.inf
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_an_error_in_the_model_is_recorded_and_raised(tmp_path: Path) -> None:
    class Raises(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        trainer(Raises(3, 1)).fit(data(), tmp_path)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert "out of luck" in summary["reason"]


def test_a_plateau_lowers_the_rate_and_it_is_recorded() -> None:
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    schedule = plateau(optimizer, Horizon(1, 1, 1), mode="max", patience=1, monitor="val/mse")
    summary = Trainer(model, nn.MSELoss(), optimizer, scheduler=schedule, max_epochs=6, log_every=1).fit(
        data()
    )
    assert summary["metrics"]["lr"]["last"] < summary["metrics"]["lr"]["first"]


def test_any_torch_scheduler_is_taken_as_it_is() -> None:
    model = linear()
    optimizer = torch.optim.SGD(model.parameters(), 1.0)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    Trainer(model, nn.MSELoss(), optimizer, scheduler=scheduler, max_epochs=3).fit(data())
    assert optimizer.param_groups[0]["lr"] == 0.125


@pytest.mark.parametrize("precision", ["fp64", "fp32", "bf16", "fp16"])
def test_each_precision_trains_and_keeps_its_parameters(precision: str) -> None:
    model = linear()
    summary = trainer(model, precision=precision, max_epochs=40).fit(data())
    assert model.weight.dtype == (torch.float64 if precision == "fp64" else torch.float32)
    assert summary["metrics"]["val/loss"]["last"] < 0.05


def test_validation_does_not_disturb_training() -> None:
    class NoValidation(TensorData):
        def validation(self) -> Any:
            return iter(())

    runs = []
    for kind in (TensorData, NoValidation):
        source = data()
        run = trainer(net())
        run.fit(kind(source.train, source.val, batch_size=8))
        runs.append(copy.deepcopy(run.model.state_dict()))
    assert equal(*runs)


def format_1(state: dict[str, Any]) -> dict[str, Any]:
    """The same state as the first format had it: lists, where there are tensors now."""
    old = copy.deepcopy(state)
    for score in old["norms"]["spikes"].values():
        score["recent"] = score["recent"].tolist()
    for window in ("losses", "norms", "buffers"):
        old["guard"][window]["values"] = old["guard"][window]["values"].tolist()
    old["norms"]["kept"] = old["norms"]["kept"].tolist()
    old["meter"]["settled"] = old["meter"]["settled"].tolist()
    version, gauss, internal = old["rng"]["python"]
    old["rng"]["python"] = [version, gauss, *internal.tolist()]
    return old


def test_a_state_of_the_first_format_goes_on_the_same(tmp_path: Path) -> None:
    saves = Checkpoints(every_steps=10, every_seconds=None, keep=9)
    whole, rest = trainer(net(), checkpoints=saves), trainer(net())
    whole.fit(data(), tmp_path)
    rest.load_state_dict(format_1(checkpoint.load(tmp_path / "checkpoints" / "step-00000010.ckpt")))
    rest.fit(data())
    assert equal(whole.state_dict() | {"checkpoints": 0}, rest.state_dict() | {"checkpoints": 0})

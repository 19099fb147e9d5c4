"""Faults on purpose: where the seed says, in nothing else, and the same again after a resume."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import composed
from conftest import ROOT, Outcome
from test_resume import same
from torch import Tensor
from torch.utils.data import TensorDataset

from trainer import checkpoint
from trainer.data.mapstyle import MapStyleData
from trainer.data.tensors import Data, TensorData
from trainer.faults import LabelNoise, LrSpike, NanBatch, OutlierBatch
from trainer.faults.batches import SpoiledData
from trainer.schedulers import Horizon
from trainer.tasks.train import Job

Command = Callable[..., Outcome]
FAULTS = sorted(path.stem for path in (ROOT / "conf" / "fault").glob("*.yaml"))
SMALL = ["data=random", "model=mlp", "loss=mse", "trainer.max_steps=80", "trainer.log_every=1"]


def job(*overrides: str) -> Job:
    (one,) = composed("python train.py " + " ".join([*SMALL, *overrides]))
    return one.prepare()


def numbered(count: int = 50, batch_size: int = 8) -> TensorData:
    """Samples that can be told: input i, target −i."""
    x = torch.arange(count, dtype=torch.float32)[:, None]
    return TensorData((x, -x), (x[:5], -x[:5]), batch_size=batch_size)


def horizon(data: Data, epochs: int = 3, **limits: Any) -> Horizon:
    return Horizon.of(data.batches_per_epoch, 1, epochs, limits.get("steps"))


def epoch(data: Data, number: int, start: int = 0) -> tuple[Tensor, Tensor]:
    inputs, targets = zip(*data.batches(number, start), strict=True)
    return torch.cat(inputs), torch.cat(targets)


def hit(data: Data) -> list[int]:
    assert isinstance(data, SpoiledData)
    return sorted(data.hit)


@pytest.mark.parametrize("fault", FAULTS)
def test_the_main_job_survives_every_fault(fault: str) -> None:
    (one,) = composed(f"python train.py fault={fault}", ["trainer.max_steps=5"])
    prepared = one.prepare()
    summary = prepared.trainer.fit(prepared.data)
    assert (summary["status"], summary["steps"]) == ("completed", 5)
    assert summary["guard"]["skipped"] == (fault == "nan_batch")
    assert all(torch.isfinite(p).all() for p in prepared.trainer.parameters)
    assert math.isfinite(summary["metrics"]["val/loss"]["last"])


def test_exactly_the_nan_batches_are_refused(tmp_path: Path) -> None:
    prepared = job("fault=nan_batch", "fault.share=0.1")
    bad = hit(prepared.data)
    assert len(bad) == 8
    summary = prepared.trainer.fit(prepared.data, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    refused = {line["step"] for line in lines if "train/loss" not in line}
    assert refused == {number + 1 for number in bad}
    assert summary["status"] == "completed"
    assert summary["guard"]["skipped"] == 8
    assert all(torch.isfinite(p).all() for p in prepared.trainer.parameters)


def test_without_a_guard_the_first_nan_batch_ends_the_run() -> None:
    prepared = job("fault=nan_batch", "guard=off")
    summary = prepared.trainer.fit(prepared.data)
    assert (summary["status"], summary["steps"]) == ("diverged", hit(prepared.data)[0] + 1)


@pytest.mark.parametrize("limits", [["trainer.max_steps=80"], ["trainer.max_steps=1"]])
@pytest.mark.parametrize("more", [[], ["trainer.accumulate=3"], ["data.batch_size=300"]])
def test_at_least_one_bad_batch_is_met_however_short_the_run(limits: list[str], more: list[str]) -> None:
    prepared = job("fault=nan_batch", "fault.share=0.001", *limits, *more)
    summary = prepared.trainer.fit(prepared.data)
    assert len(hit(prepared.data)) == summary["guard"]["skipped"] == 1


def test_only_the_inputs_of_the_chosen_training_batches_change() -> None:
    clean = numbered()
    length = horizon(clean)
    spoiled = OutlierBatch(share=0.2, factor=1e3).data(numbered(), length)
    bad = hit(spoiled)
    assert len(bad) == round(0.2 * 21)
    for number in range(length.epochs):
        pairs = zip(clean.batches(number), spoiled.batches(number), strict=True)
        for index, ((x, y), (seen, targets)) in enumerate(pairs):
            factor = 1e3 if number * 7 + index in bad else 1.0
            assert torch.equal(seen, factor * x)
            assert torch.equal(targets, y)
    pairs = zip(clean.validation(), spoiled.validation(), strict=True)
    assert all(torch.equal(a, b) for pair in pairs for a, b in zip(*pair, strict=True))


def test_a_nan_batch_holds_one_nan_and_leaves_the_data_alone() -> None:
    data = numbered()
    spoiled = NanBatch(share=1.0).data(data, horizon(data))
    for inputs, _ in spoiled.batches(0):
        assert torch.isnan(inputs).sum() == 1
    assert torch.isfinite(data.train[0]).all()


def test_which_batches_are_bad_is_the_seeds_choice() -> None:
    def chosen(seed: int) -> list[int]:
        data = numbered()
        return hit(NanBatch(share=0.2, seed=seed).data(data, horizon(data)))

    assert chosen(1) == chosen(1) != chosen(2)


@pytest.mark.parametrize("fault", [NanBatch(0.3), OutlierBatch(0.3), LabelNoise(0.3)])
def test_an_epoch_goes_on_in_the_middle_as_it_would_have(fault: NanBatch) -> None:
    data = fault.data(numbered(), horizon(numbered()))
    for whole, part in zip(epoch(data, 1), epoch(data, 1, start=3), strict=True):
        assert torch.equal(whole[24:].nan_to_num(), part.nan_to_num())


@pytest.mark.parametrize("fault", [NanBatch(), OutlierBatch()])
def test_whole_numbers_cannot_be_spoiled(fault: NanBatch) -> None:
    tokens = torch.zeros(4, 3, dtype=torch.int64)
    data = TensorData((tokens, tokens), (tokens, tokens), batch_size=2)
    with pytest.raises(ValueError, match=r"^inputs must be floating-point .*int64; use fault=lr_spike"):
        fault.data(data, horizon(data))


TOKENS = """
import torch
from trainer.data.tensors import TensorData


def data():
    tokens = torch.zeros(40, 4, dtype=torch.int64)
    return TensorData((tokens, tokens.float()), (tokens, tokens.float()), batch_size=8)
"""


def test_the_refusal_names_the_data_and_leaves_no_trace(command: Command, tmp_path: Path) -> None:
    (tmp_path / "my_conf" / "data").mkdir(parents=True)
    (tmp_path / "my_conf" / "data" / "tokens.yaml").write_text("_target_: tokens.data\n")
    (tmp_path / "tokens.py").write_text(TOKENS)
    outcome = command("--config-dir", "my_conf", "data=tokens", "model=mlp", "fault=nan_batch")
    assert outcome.code == 2
    assert "fault=nan_batch on data=tokens: inputs must be floating-point" in outcome.err
    assert not outcome.run_folders


def noisy_by_sample(data: Data, number: int) -> dict[float, float]:
    """Of each sample in an epoch whose target it has."""
    inputs, targets = epoch(data, number)
    pairs = zip(inputs[:, 0].tolist(), targets[:, 0].tolist(), strict=True)
    return {x: -y for x, y in pairs if x != -y}


def mapstyle(count: int = 50, workers: int = 0) -> MapStyleData:
    x = torch.arange(count, dtype=torch.float32)[:, None]
    dataset: Any = TensorDataset(x, -x)
    return MapStyleData(dataset, dataset, batch_size=8, num_workers=workers)


@pytest.mark.parametrize("source", [numbered, mapstyle])
def test_a_share_of_the_samples_has_anothers_target_in_every_epoch(source: Callable[[], Data]) -> None:
    clean = source()
    noisy = LabelNoise(share=0.2).data(source(), horizon(clean))
    swapped = noisy_by_sample(noisy, 0)
    assert len(swapped) == 10
    assert sorted(swapped) == sorted(swapped.values())  # passed round: none becomes more frequent
    assert noisy_by_sample(noisy, 1) == noisy_by_sample(noisy, 7) == swapped
    for number in (0, 1):
        assert torch.equal(epoch(noisy, number)[0], epoch(clean, number)[0])
    for batches in zip(noisy.validation(), clean.validation(), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(*batches, strict=True))


def test_noisy_labels_leave_what_a_transform_makes_of_the_inputs() -> None:
    """Of digits_denoise, which makes its noisy inputs from the clean targets."""
    clean, noisy = (
        composed(f"python train.py {fault}")[0].prepare().data
        for fault in ("seed=0", "fault=label_noise")
    )
    (x, y), (seen, targets) = epoch(clean, 2), epoch(noisy, 2)
    assert torch.equal(x, seen)
    assert (y != targets).flatten(1).any(1).sum() == round(0.1 * len(y))


def test_targets_of_several_tensors_stay_together() -> None:
    def pair(x: Tensor, y: Tensor, generator: torch.Generator) -> Any:
        return x, (y, 2 * y)

    data = numbered()
    data.transform = pair
    noisy = LabelNoise(share=1.0).data(data, horizon(data))
    transform = noisy.transform  # type: ignore[attr-defined]
    generator = torch.Generator().manual_seed(3)
    order = torch.randperm(50, generator=generator)
    x, (once, twice) = transform(*(part[order] for part in data.train), generator)
    assert torch.equal(twice, 2 * once)
    assert (once != -x).all()


def test_samples_that_never_come_again_cannot_be_relabelled() -> None:
    class Stream:
        """Endless."""

    with pytest.raises(ValueError, match="samples that come again in every epoch, got Stream"):
        LabelNoise().data(Stream(), Horizon(1, 1, 1))  # type: ignore[arg-type]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_run_resumed_amid_a_fault_ends_bit_for_bit_where_it_would_have(
    tmp_path: Path, fault: str
) -> None:
    share = [] if fault in ("none", "lr_spike") else ["fault.share=0.3"]
    run = [f"fault={fault}", *share, "checkpoint.every_steps=7", "checkpoint.keep=9"]
    whole, resumed = job(*run), job(*run)
    whole.trainer.fit(whole.data, tmp_path)
    # The rate spikes in steps 40 to 44.
    resumed.trainer.load_state_dict(checkpoint.load(tmp_path / "checkpoints" / "step-00000042.ckpt"))
    resumed.trainer.fit(resumed.data, tmp_path / "resumed")
    assert resumed.trainer.step == 80
    assert same(resumed.trainer.state_dict(), whole.trainer.state_dict())


WRONG: Sequence[tuple[Callable[[], object], str]] = [
    (lambda: NanBatch(share=0), "^share must be > 0, got 0; use fault=none"),
    (lambda: OutlierBatch(share=1.5), "^share must be <= 1, got 1.5"),
    (lambda: OutlierBatch(factor=math.inf), "^factor must be a finite number"),
    (lambda: LabelNoise(share=math.nan), "^share must be a finite number"),
    (lambda: LrSpike(at=1.0), "^at must be >= 0 and < 1, got 1.0"),
    (lambda: LrSpike(steps=0), "^steps must be a whole number >= 1, got 0"),
    (lambda: LrSpike(factor=-2), "^factor must be > 0, got -2"),
]


@pytest.mark.parametrize(("build", "message"), WRONG)
def test_a_value_out_of_range_is_told_in_a_line(build: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()

"""What is kept of refused steps: which, how many, as they were, and nothing that is too large."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainer import checkpoint
from trainer.data.tensors import TensorData
from trainer.guard import Off, Skip
from trainer.loop import Trainer
from trainer.refusals import Refusals, refused_steps

BAD = 1e38


def data(bad: tuple[int, ...], samples: int = 64) -> TensorData:
    """Batches of four; that of each bad sample is refused, in every epoch another one."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(samples, 3, generator=generator)
    y = x.sum(1, keepdim=True)
    y[list(bad)] = BAD
    return TensorData((x, y), (x[:0], y[:0]), batch_size=4)


def trained(
    folder: Path, bad: tuple[int, ...], refusals: Refusals | None = None, **more: Any
) -> Trainer:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 1))
    settings = {"max_epochs": 3, "guard": Skip(max_consecutive=99), "device": "cpu"} | more
    optimizer = torch.optim.Adam(model.parameters(), 0.01, fused=True)
    run = Trainer(model, nn.MSELoss(), optimizer, refusals=refusals, **settings)
    run.fit(data(bad), folder)
    return run


def kept(folder: Path) -> list[dict[str, Any]]:
    return [checkpoint.load(path) for path in refused_steps(folder / "refused")]


def test_the_first_refusals_and_the_latest_are_kept(tmp_path: Path) -> None:
    run = trained(tmp_path, (0, 30), max_epochs=5)
    everything = trained(tmp_path / "all", (0, 30), Refusals(keep=99), max_epochs=5)
    steps = [refusal["step"] for refusal in kept(tmp_path / "all")]
    assert run.guard.skipped == everything.guard.skipped >= len(steps) > 3
    assert [refusal["step"] for refusal in kept(tmp_path)] == [*steps[:2], steps[-1]]


def test_the_step_can_be_taken_again_bit_for_bit(tmp_path: Path) -> None:
    """With the weights, the buffers and the dropout of that step, its loss is what was refused."""
    run = trained(tmp_path, (0,))
    refusal = kept(tmp_path)[0]
    ((inputs, targets),) = refusal["batches"]
    assert BAD in targets
    assert len(inputs) == 4
    assert inputs.untyped_storage().nbytes() == inputs.nbytes  # not the epoch that it is a view of
    run.model.load_state_dict(refusal["modules"]["model"])
    torch.set_rng_state(refusal["generators"][0])
    assert nn.MSELoss()(run.model(inputs), targets).item() == refusal["loss"]


def test_of_refused_steps_in_a_row_only_the_first_is_kept(tmp_path: Path) -> None:
    trained(tmp_path, tuple(range(64)), max_epochs=1)
    assert [refusal["step"] for refusal in kept(tmp_path)] == [1]


@pytest.mark.parametrize("refusals", [Refusals(keep=0), Refusals(budget_mb=1e-4)])
def test_none_is_kept_where_none_is_wanted_or_fits(tmp_path: Path, refusals: Refusals) -> None:
    assert trained(tmp_path, (0,), refusals).guard.skipped
    assert not (tmp_path / "refused").exists()


def test_nothing_is_copied_where_nothing_can_be_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copying(*arguments: Any) -> list[Tensor]:
        raise AssertionError("the generators are copied")

    monkeypatch.setattr("trainer.refusals._generators", copying)
    assert trained(tmp_path, (), guard=Off()).step == 48
    with pytest.raises(AssertionError, match="generators"):
        trained(tmp_path / "guarded", ())


def test_the_loss_scale_before_the_step_is_kept_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scales, begin = {}, Refusals.begin

    def noting(refusals: Refusals, batches: Any, step: int, *place: int) -> None:
        assert refusals.scaler is not None
        scales[step] = refusals.scaler.scale.item()
        begin(refusals, batches, step, *place)

    monkeypatch.setattr(Refusals, "begin", noting)
    trained(tmp_path, (0,), precision="fp16", max_epochs=2)
    assert kept(tmp_path)
    for refusal in kept(tmp_path):
        assert refusal["scale"] == scales[refusal["step"]]


def test_a_run_without_refusals_leaves_nothing(tmp_path: Path) -> None:
    trained(tmp_path, ())
    assert not (tmp_path / "refused").exists()


def test_all_batches_of_an_accumulated_step_are_kept(tmp_path: Path) -> None:
    trained(tmp_path, (0,), accumulate=2)
    assert len(kept(tmp_path)[0]["batches"]) == 2


def test_on_a_device_the_weights_are_those_of_the_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tensor, "is_cpu", property(lambda tensor: False))
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    run = Trainer(
        model, nn.MSELoss(), torch.optim.SGD(model.parameters(), 0.01), log_every=4, device="cpu"
    )
    run.runs_ahead = True
    run.fit(data((0,), samples=32), tmp_path)
    first = kept(tmp_path)[0]
    assert first["later"] == -first["step"] % 4
    assert BAD in first["batches"][0][1]


def test_a_full_disk_costs_the_file_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("trainer.refusals.save", full)
    with pytest.warns(UserWarning, match="a refused step is not kept: No space left"):
        assert trained(tmp_path, (0,)).step == 48


class Cut:
    """A model in parts, of so many bytes."""

    def __init__(self, nbytes: int) -> None:
        self.nbytes, self.together = nbytes, 0

    @contextmanager
    def gathered(self) -> Iterator[None]:
        self.together += 1
        yield


@pytest.mark.parametrize(("nbytes", "times"), [(2**20, 1), (2**20 + 1, 0)])
@pytest.mark.parametrize("leads", [True, False])
def test_every_process_puts_a_model_together_that_fits(
    tmp_path: Path, nbytes: int, times: int, leads: bool
) -> None:
    refusals, cut = Refusals(budget_mb=1), Cut(nbytes)
    modules = {"model": nn.Linear(3, 1)}
    refusals.open(tmp_path if leads else None, modules, Skip(), sharding=cut)  # type: ignore[arg-type]
    refusals.begin([(torch.zeros(2, 3), torch.zeros(2, 1))], step=1, epoch=0, batch=0)
    refusals.settle(torch.nan, 1.0, True, 0.0)
    assert cut.together == times
    assert len(kept(tmp_path)) == times * leads


def test_numbers_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="keep must be a whole number >= 0, got -1"):
        Refusals(keep=-1)
    with pytest.raises(ValueError, match="budget_mb must be > 0"):
        Refusals(budget_mb=0)

"""Two processes that share every batch take the steps that one process takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from several import together
from several_runs import (
    ALONE,
    MODES,
    Partly,
    Run,
    close,
    data,
    net,
    normalized,
    spoiled,
    trained,
    trainer,
    two_losses,
)
from torch import Tensor, nn

from losses.combined import CombinedLoss
from losses.dwa import DynamicWeightAverageLoss
from losses.uncertainty import UncertaintyLoss
from trainer.data.mapstyle import MapStyleData
from trainer.diagnostics import Diagnostics
from trainer.distributed.processes import Processes
from trainer.distributed.torchrun import Place


class Watched(torch.utils.data.Dataset[Any]):
    """Samples of which it is known how many were fetched."""

    def __init__(self, inputs: Tensor, targets: Tensor) -> None:
        self.inputs, self.targets, self.fetched = inputs, targets, 0

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> Any:
        self.fetched += 1
        return self.inputs[index], self.targets[index]


def mapstyle() -> MapStyleData:
    source = data()
    return MapStyleData(Watched(*source.train), Watched(*source.val), batch_size=8)  # type: ignore


# What each process runs beside the modes: everything that could differ between one and several.
CASES: dict[str, Callable[[Place], Run]] = {
    "accumulate": lambda place: trained(place, accumulate=2),
    "terms": lambda place: trained(place, loss=CombinedLoss(), tags=("train/loss/mse", "train/loss/l1")),
    "loss that learns": lambda place: trained(place, loss=UncertaintyLoss(two_losses())),
    "loss with statistics": lambda place: trained(
        place, loss=DynamicWeightAverageLoss(two_losses(), window=4)
    ),
    "rows of a dataset": lambda place: trained(place, mapstyle()),
    "shares": lambda place: trained(
        place,
        loss=CombinedLoss(),
        diagnostics=Diagnostics(shares=True, activations=False),
        tags=("train/share/l1", "train/share/mse", "layers/0/grad_norm"),
    ),
    "nan in the first half": lambda place: trained(place, spoiled(entry=0, value=math.nan)),
    "nan in the second half": lambda place: trained(place, spoiled(entry=7, value=math.nan)),
    "unused parameter": lambda place: trained(
        place, model=Partly(), processes=Processes(find_unused=True, place=place)
    ),
    "constant buffer": lambda place: trained(place, model=net(Constant())),
    "normalized": lambda place: trained(place, model=normalized()),
    "normalized anew on the way back": lambda place: trained(
        place, model=normalized(), checkpoint_activations=True
    ),
}


class Constant(nn.Module):
    """Buffers that no step changes, one of them not finite."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(1 / 3, dtype=torch.float64))
        self.register_buffer("mask", torch.full((8,), -math.inf))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.mask.exp()


Both = tuple[dict[str, Run], list[dict[str, Run]]]


def cases(place: Place) -> dict[str, Run]:
    return {name: case(place) for name, case in CASES.items()}


@pytest.fixture(scope="module")
def both() -> Both:
    """All cases in one process, and in two that are started once."""
    torch.set_num_threads(1)
    return cases(ALONE), together(cases)


@pytest.mark.parametrize("name", CASES)
def test_two_processes_follow_one(both: Both, name: str) -> None:
    alone, (first, second) = both[0][name], (result[name] for result in both[1])
    assert close(alone, first), "the first of two processes"
    assert first["weights"] == second["weights"], "the two of them, bit for bit"
    assert first["guard"] == second["guard"] == alone["guard"]
    assert first["status"] == "completed"
    assert len(first["rows"]) >= 11
    assert not second["rows"], "only the first shows anything"


def test_a_bad_row_of_either_process_is_one_refused_step_of_both(both: Both) -> None:
    for half in ("first", "second"):
        for result in both[1]:
            assert result[f"nan in the {half} half"]["guard"]["skipped"] == 1


def follow(steps: int) -> None:
    def run(place: Place) -> dict[str, Run]:
        return {name: trained(place, clip=mode(), max_steps=steps) for name, mode in MODES.items()}

    single = run(ALONE)
    first, second = together(run, patience=900)
    unclipped = single["none"]
    for name, alone in single.items():
        assert len(alone["rows"]) == steps
        assert close(alone, first[name], 1e-5), name
        assert first[name]["weights"] == second[name]["weights"], name
        changed = alone["weights"] != unclipped["weights"]
        assert changed or name == "none", f"{name} never bound: nothing is shown"


def test_every_clip_mode_follows_one_process() -> None:
    follow(15)


@pytest.mark.soak
def test_every_clip_mode_follows_one_process_for_a_hundred_steps() -> None:
    follow(100)


def test_a_process_fetches_its_own_rows_only() -> None:
    source, whole = mapstyle(), mapstyle()
    kept = Processes(place=Place(1, 2)).own(source)
    source.train.fetched = 0  # type: ignore[attr-defined]
    parts = list(kept.batches(3, 2))
    for part, (inputs, targets) in zip(parts, whole.batches(3, 2), strict=True):
        half = len(inputs) // 2
        assert torch.equal(part[0], inputs[half:])
        assert torch.equal(part[1], targets[half:])
    assert source.train.fetched == 4 + 4 + 3  # type: ignore[attr-defined]  # of 8, 8 and 5
    assert sum(len(inputs) for inputs, _ in kept.validation()) == 5  # of 9


def test_processes_that_do_not_see_one_checkpoint_do_not_begin() -> None:
    def run(place: Place) -> str:
        part = trainer(place)
        part.step = 10 * place.rank
        with pytest.raises(ValueError, match=r"lead all processes to one step, got \[0, 10\]"):
            part.fit(data())
        return "refused"

    assert together(run) == ["refused", "refused"]


def test_alone_nothing_is_asked_of_anyone() -> None:
    run = trainer(ALONE)
    run.fit(data())
    assert run.gradients.forward is run.model
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"backend": "mpi"}, "backend must be one of auto, gloo, nccl, got 'mpi'"),
        ({"timeout": 0}, "timeout must be > 0, got 0"),
    ],
)
def test_an_argument_out_of_range_is_refused(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        Processes(**changes)


def test_nccl_needs_a_gpu() -> None:
    with pytest.raises(ValueError, match="backend must be gloo or auto where device=cpu, got 'nccl'"):
        Processes("nccl").device("cpu")


def test_an_anomaly_is_looked_for_by_one_process() -> None:
    with pytest.raises(ValueError, match="detect_anomaly must be false for 2 processes"):
        trainer(Place(0, 2), detect_anomaly=True)


def test_a_parameter_without_a_gradient_is_said_how_to_be_allowed() -> None:
    def run(place: Place) -> str:
        with pytest.raises(RuntimeError) as raised:
            trained(place, model=Partly())
        return str(raised.value)

    assert "trainer.processes.find_unused=true" in together(run)[1]


class Own(nn.BatchNorm1d):
    """BatchNorm computed in a way of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2 * x)


def test_batch_normalization_that_sees_its_own_rows_only_is_said_to() -> None:
    several = Processes(place=Place(0, 2))
    (note,) = several.notes(net(Own(8)))
    assert note.startswith("a BatchNorm with a forward of its own normalizes by the rows of each of 2")
    assert several.notes(net(nn.BatchNorm1d(8))) == Processes().notes(net(Own(8))) == []

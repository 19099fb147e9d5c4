"""Two processes that share every batch take the steps that one process takes."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from several import dies_at, together
from torch import Tensor, nn

from losses.combined import CombinedLoss
from losses.dwa import DynamicWeightAverageLoss
from losses.uncertainty import UncertaintyLoss
from trainer import checkpoint
from trainer.checkpoint import Checkpoints
from trainer.clipping import (
    AGC,
    SPAM,
    AdaGC,
    AutoClip,
    ClipByLayerNorm,
    ClipByNorm,
    ClipByValue,
    NoClip,
    ZClip,
)
from trainer.data.mapstyle import MapStyleData
from trainer.data.tensors import TensorData
from trainer.diagnostics import Diagnostics
from trainer.faults.batches import SpoiledData
from trainer.loop import Trainer
from trainer.metrics import Metric
from trainer.peers import ProcessLost
from trainer.processes import Processes
from trainer.torchrun import Place

ALONE = Place()
MODES: dict[str, Callable[[], Any]] = {
    "none": NoClip,
    "norm": lambda: ClipByNorm(0.3),
    "norm 1": lambda: ClipByNorm(2.0, 1),
    "norm inf": lambda: ClipByNorm(0.1, math.inf),
    "value": lambda: ClipByValue(0.05),
    "layer_norm": lambda: ClipByLayerNorm(0.1),
    "agc": lambda: AGC(0.02),
    "autoclip": lambda: AutoClip(30.0, window=20, warmup=5),
    "zclip": lambda: ZClip(0.5, warmup=5),
    "adagc": lambda: AdaGC(1.01, warmup=5),
    "spam": lambda: SPAM(10.5, every=10, warmup=5),
}


def data(**changes: Any) -> TensorData:
    """37 samples, so that the last batch of an epoch is 5, of which one process has 2 and one 3."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(37, 3, generator=generator)
    y = x @ torch.tensor([[1.0], [-2.0], [0.5]]) + 0.3 * torch.randn(37, 1, generator=generator)
    error = Metric(lambda p, t: (p - t).square().flatten(1).mean(1), higher_is_better=False)
    return TensorData((x, y), (x[:9], y[:9]), batch_size=8, metrics={"mse": error}, **changes)


def net(*more: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 8), *more, nn.Tanh(), nn.Linear(8, 1))


def trainer(place: Place, model: nn.Module | None = None, **changes: Any) -> Trainer:
    settings: dict[str, Any] = {"max_epochs": None, "max_steps": 20, "log_every": 1, "device": "cpu"}
    model, loss = model or net(), changes.pop("loss", None) or nn.MSELoss()
    parameters = [*model.parameters(), *(loss.parameters() if isinstance(loss, nn.Module) else ())]
    optimizer = torch.optim.Adam(parameters, 0.01, betas=(0.9, 0.9))
    processes = Processes(place=place)
    settings |= {"precision": "fp64", "processes": processes, **changes}
    return Trainer(model, loss, optimizer, **settings)


class Losses:
    """A view that keeps the recorded values of some tags."""

    def __init__(self, *tags: str) -> None:
        self.tags = tags or ("train/loss", "grad/norm", "val/mse")
        self.rows: list[list[float]] = []

    def scalars(self, step: int, epoch: int, values: dict[str, float]) -> None:
        self.rows.append([values[tag] for tag in self.tags if tag in values])

    def note(self, line: str) -> None: ...
    def histograms(self, step: int, values: Any) -> None: ...


def flat(*parts: object) -> list[float]:
    """Parameters and buffers of those that are modules."""
    modules = [part for part in parts if isinstance(part, nn.Module)]
    values = [value for module in modules for value in module.state_dict().values()]
    return [float(entry) for value in values for entry in value.flatten().tolist()]


Run = dict[str, Any]


def trained(place: Place, source: Any = None, tags: tuple[str, ...] = (), **changes: Any) -> Run:
    """What there is to compare of a run."""
    kept, run = Losses(*tags), trainer(place, **changes)
    summary = run.fit(source or data(), views=[kept])
    outcome = {"rows": kept.rows, "weights": flat(run.model, run.loss)}
    return outcome | {name: summary[name] for name in ("guard", "status")}


def close(one: Run, other: Run, tolerance: float = 1e-9) -> bool:
    rows = [pytest.approx(row, rel=tolerance, abs=tolerance) for row in one["rows"]]
    weights = pytest.approx(one["weights"], rel=tolerance, abs=tolerance)
    return bool(other["rows"] == rows and other["weights"] == weights)


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


def spoiled(*, entry: int, value: float) -> SpoiledData:
    """Data whose third batch holds the value in one of its rows."""

    def spoil(inputs: Tensor) -> Tensor:
        inputs = inputs.clone()
        inputs[entry, 0] = value
        return inputs

    return SpoiledData(data(), frozenset([2]), spoil)


def two_losses() -> dict[str, nn.Module]:
    return {"l1": nn.L1Loss(), "mse": nn.MSELoss()}


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
    "constant buffer": lambda place: trained(place, model=net(Constant())),
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
    assert len(first["rows"]) >= 19
    assert not second["rows"], "only the first shows anything"


def test_a_bad_row_of_either_process_is_one_refused_step_of_both(both: Both) -> None:
    for half in ("first", "second"):
        for result in both[1]:
            assert result[f"nan in the {half} half"]["guard"]["skipped"] == 1


def follow(steps: int) -> None:
    def run(place: Place) -> dict[str, Run]:
        return {name: trained(place, clip=mode(), max_steps=steps) for name, mode in MODES.items()}

    single = run(ALONE)
    first, second = together(run)
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


class Drops(nn.Module):
    """What dropout has drawn in each step of this process."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[float] = []

    def forward(self, x: Tensor) -> Tensor:
        mask = nn.functional.dropout(torch.ones(8, dtype=x.dtype), 0.5, self.training)
        if self.training:
            self.drawn.append(float(mask @ 2 ** torch.arange(8, dtype=x.dtype)))
        return x * mask


def saving(
    place: Place, folder: Path, resume: Path | None = None, *more: nn.Module, **changes: Any
) -> Run:
    """A run with a checkpoint every five steps, from the tenth of an earlier one where there is one."""
    settings = {"checkpoints": Checkpoints(every_steps=5, every_seconds=None, keep=9), **changes}
    run = trainer(place, net(*more), clip=ZClip(0.5, warmup=5), **settings)
    if resume is not None:
        run.load_state_dict(checkpoint.load(resume / "checkpoints" / "step-00000010.ckpt"))
    run.fit(data(), folder / str(place.rank))
    drawn = [module.drawn for module in run.model.modules() if isinstance(module, Drops)]
    return {"weights": flat(run.model), "drawn": drawn, "statistics": flat(*run.model[1:-1])}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Run]]]:
    """Runs that save and go on, in one process and in two."""
    torch.set_num_threads(1)
    at = tmp_path_factory.mktemp("saved")
    once = {"max_steps": 1}
    alone = {
        "one": [saving(ALONE, at / "one")],
        "one normalized": [saving(ALONE, at / "normalized", None, nn.BatchNorm1d(8), **once)],
    }

    def of_two(place: Place) -> dict[str, Run]:
        return {
            "two": saving(place, at / "two"),
            "one, then two": saving(place, at / "one, then two", at / "one" / "0"),
            "normalized": saving(place, at / "both normalized", None, nn.BatchNorm1d(8), **once),
            "drawing": saving(place, at / "drawing", None, Drops(), nn.BatchNorm1d(8)),
            "drawing, resumed": saving(
                place, at / "again", at / "drawing" / "0", Drops(), nn.BatchNorm1d(8)
            ),
        }

    both = together(of_two)
    several = {name: [result[name] for result in both] for name in both[0]}
    after = {"two, then one": [saving(ALONE, at / "two, then one", at / "two" / "0")]}
    return at, alone | several | after


Saved = tuple[Path, dict[str, list[Run]]]


@pytest.mark.parametrize("name", ["two", "one, then two", "two, then one"])
def test_a_run_goes_on_in_any_number_of_processes(saved: Saved, name: str) -> None:
    _, runs = saved
    expected = pytest.approx(runs["one"][0]["weights"], rel=1e-9, abs=1e-9)
    assert all(run["weights"] == expected for run in runs[name])


def test_a_run_that_draws_goes_on_bit_for_bit_in_as_many_processes(saved: Saved) -> None:
    _, runs = saved
    for whole, resumed in zip(runs["drawing"], runs["drawing, resumed"], strict=True):
        assert resumed["weights"] == whole["weights"]
        assert resumed["drawn"][0] == whole["drawn"][0][10:] != []


def test_each_process_draws_its_own_and_keeps_the_statistics_of_all(saved: Saved) -> None:
    _, runs = saved
    first, second = runs["drawing"]
    same = sum(a == b for a, b in zip(first["drawn"][0], second["drawn"][0], strict=True))
    assert same <= 2, "of 20 masks of 8 bits"
    assert len(set(first["drawn"][0])) > 10
    assert first["weights"] == second["weights"], "with those of BatchNorm"
    mean = slice(16, 24)  # of BatchNorm, behind its weight and bias, after one step on the same batch
    alone, several = (runs[name][0]["statistics"][mean] for name in ("one normalized", "normalized"))
    assert several == pytest.approx(alone, rel=1e-12)
    assert any(abs(value) > 1e-3 for value in alone)


def test_only_the_first_process_writes(saved: Saved) -> None:
    at, _ = saved
    assert {path.name for path in (at / "two").iterdir()} == {"0"}
    names = {path.name for path in (at / "two" / "0").iterdir()}
    assert names == {"metrics.jsonl", "summary.json", "checkpoints"}


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


def test_a_process_that_is_killed_ends_the_other_and_is_named(tmp_path: Path) -> None:
    def run(place: Place) -> tuple[str, str]:
        dies_at(5)(place)
        try:
            trainer(place).fit(data(), tmp_path)
        except ProcessLost as error:
            return type(error).__name__, str(error)
        return "", ""

    (kind, line), killed = together(run)
    assert killed is None
    assert kind == "ProcessLost"
    assert line.startswith("process 1 (pid ")
    assert line.endswith(" is gone: the others end too")
    summary = (tmp_path / "summary.json").read_text()
    assert '"status": "failed"' in summary
    assert "process 1 (pid " in summary
    assert not list((tmp_path).glob("checkpoints/*")), "of the middle of a step nothing is kept"


def test_a_process_that_stands_still_is_not_waited_for(tmp_path: Path) -> None:
    def run(place: Place) -> str:
        dies_at(5, number=signal.SIGSTOP)(place)
        try:
            trainer(place, processes=Processes(timeout=1.0, place=place)).fit(data())
        except ProcessLost as error:
            return str(error)
        return "went on"

    assert "has been stopped" in together(run, answers=1)[0]


def test_a_signal_to_one_process_is_a_decision_of_both(tmp_path: Path) -> None:
    def run(place: Place) -> tuple[str, str, int]:
        dies_at(5, number=signal.SIGTERM)(place)
        summary = trainer(place).fit(data(), tmp_path)
        return summary["status"], summary["reason"], summary["steps"]

    first, second = together(run)
    assert first == second
    assert first[:2] == ("interrupted", "SIGTERM")
    assert first[2] in (5, 6), "a checkpoint within one step"
    assert (tmp_path / "checkpoints" / f"step-{first[2]:08d}.ckpt").exists()


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

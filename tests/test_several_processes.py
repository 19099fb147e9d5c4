"""Any number of processes follows one: odd shapes, every precision, checkpoints of another number."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from several import together
from several_runs import ALONE, MODES, Run, close, data, flat, normalized, trained, trainer
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard  # noqa: F401  # before the processes are forked

from trainer import checkpoint
from trainer.checkpoint import Checkpoints
from trainer.clipping import AdaGC
from trainer.distributed.processes import Processes
from trainer.distributed.torchrun import Place
from trainer.guard import Rewind

KINDS = {"ddp": False, "fsdp": True}
QUICK = ("none", "agc")


class Odd(nn.Module):
    """Seven rows, two rows, a row, and a number: three processes have three columns to divide."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(3, 7), nn.Tanh(), nn.Linear(7, 2), nn.Linear(2, 12))
        self.last, self.scale = nn.Linear(12, 1), nn.Parameter(torch.tensor(0.7))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.layers(x).tanh() * self.scale)
        return y


def runs(place: Place, names: Iterable[str] = QUICK, steps: int = 5) -> dict[str, Run]:
    """A run under each mode, of each kind."""
    return {
        f"{kind} {name}": trained(
            place,
            model=Odd(),
            clip=MODES[name](),
            max_steps=steps,
            processes=Processes(place=place, shard=shard),
        )
        for name in names
        for kind, shard in KINDS.items()
    }


def follow(alone: dict[str, Run], several: list[dict[str, Run]], tolerance: float = 1e-9) -> None:
    for name, expected in alone.items():
        assert all(close(expected, result[name], tolerance) for result in several[:1]), name
        assert all(result[name]["weights"] == several[0][name]["weights"] for result in several), name
        kind = name.partition(" ")[0]
        binds = expected["weights"] != alone[f"{kind} none"]["weights"]
        assert binds or name == f"{kind} none", f"{name} never bound: nothing is shown"


def stage(place: Place, kind: str, until: int, at: Path, before: Path | None = None) -> Run:
    """Some steps of a run that saves every third, with the warm-up of its clip and a snapshot."""
    settings: dict[str, Any] = {"clip": AdaGC(1.01, warmup=5), "guard": Rewind(every=2)}
    settings["checkpoints"] = Checkpoints(every_steps=3, every_seconds=None)
    settings["processes"] = Processes(place=place, shard=KINDS[kind])
    run = trainer(place, Odd(), max_steps=until, **settings)
    if before is not None:
        name = f"step-{until - 3:08d}.ckpt"
        run.load_state_dict(checkpoint.load(before / kind / "checkpoints" / name))
    run.fit(data(), at / kind)
    return {"weights": flat(run.model)}


# How closely what is computed in so many bits follows: of float16 and bfloat16 some bits of a gradient.
CLOSE = {"fp64": 1e-9, "fp32": 1e-5, "bf16": 0.05, "fp16": 0.01}
MATRIX = [
    (kind, precision, accumulate, anew, compiled)
    for kind in KINDS
    for precision in CLOSE
    for accumulate in (1, 2)
    for anew in (False, True)
    for compiled in ((False, "aot_eager") if kind == "ddp" else (False,))
]
FEW = [
    ("fsdp", "bf16", 2, True, False),
    ("fsdp", "fp16", 2, True, False),
    ("ddp", "fp16", 1, False, False),
]
Setting = tuple[str, str, int, bool, Any]


def computed(place: Place, settings: Iterable[Setting]) -> dict[Setting, Run]:
    """Four steps with BatchNorm under each; under fp16 the first overflows."""
    found = {}
    for setting in settings:
        kind, precision, accumulate, anew, compiled = setting
        processes = Processes(place=place, shard=KINDS[kind])
        more = {"accumulate": accumulate, "checkpoint_activations": anew, "compile": compiled}
        more |= {"precision": precision, "processes": processes}
        found[setting] = trained(place, model=normalized(), max_steps=4, **more)
    return found


def follow_computed(alone: dict[Setting, Run], several: list[dict[Setting, Run]]) -> None:
    for setting, expected in alone.items():
        first, second = (result[setting] for result in several)
        assert close(expected, first, CLOSE[setting[1]]), setting
        assert first["weights"] == second["weights"], setting
        assert first["guard"] == second["guard"] == expected["guard"], setting
        assert (expected["rows"][0] == []) == (setting[1] == "fp16")


class Found(NamedTuple):
    """Runs in one process and in several."""

    one: dict[str, Run]
    three: list[dict[str, Run]]
    whole: Run
    resumed: list[dict[str, Run]]
    few: list[dict[Setting, Run]]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """One process, two, and three, which have gone on where one and two had stopped."""
    torch.set_num_threads(1)
    at = tmp_path_factory.mktemp("stages")

    def stages(place: Place, number: int) -> dict[str, Run]:
        before = at / str(number - 1) if number > 1 else None
        return {kind: stage(place, kind, 3 * number, at / str(number), before) for kind in KINDS}

    whole = stage(ALONE, "ddp", 9, at / "whole")
    two = together(lambda place: (computed(place, FEW), stages(place, 1)))
    stages(ALONE, 2)
    three = together(lambda place: (runs(place), stages(place, 3)), 3)
    columns = ([row[column] for row in three] for column in (0, 1))
    return Found(runs(ALONE), next(columns), whole, next(columns), [few for few, _ in two])


def test_three_processes_follow_one(found: Found) -> None:
    follow(found.one, found.three)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_goes_on_in_two_processes_then_one_then_three(found: Found, kind: str) -> None:
    expected = pytest.approx(found.whole["weights"], rel=1e-9, abs=1e-9)
    assert all(result[kind]["weights"] == expected for result in found.resumed)


def test_two_processes_follow_one_in_half_the_bits(found: Found) -> None:
    follow_computed(computed(ALONE, FEW), found.few)


@pytest.mark.soak
def test_two_processes_follow_one_under_every_combination() -> None:
    torch.set_num_threads(1)
    follow_computed(
        computed(ALONE, MATRIX), together(lambda place: computed(place, MATRIX), patience=900)
    )


@pytest.mark.soak
@pytest.mark.parametrize("size", [3, 4])
def test_many_processes_follow_one_for_a_hundred_steps(size: int) -> None:
    torch.set_num_threads(1)
    hundred = runs(ALONE, MODES, 100)
    follow(hundred, together(lambda place: runs(place, MODES, 100), size, patience=900), 1e-5)

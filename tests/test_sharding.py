"""A model cut up among two processes takes the steps that one process takes."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from several import dies_at, together
from several_runs import (
    ALONE,
    MODES,
    Partly,
    Run,
    close,
    data,
    flat,
    normalized,
    spoiled,
    trained,
    trainer,
    two_losses,
)
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard  # noqa: F401  # before the processes are forked

from losses.uncertainty import UncertaintyLoss
from trainer import checkpoint
from trainer.checkpoint import Checkpoints
from trainer.clipping import AdaGC
from trainer.diagnostics import Diagnostics
from trainer.distributed.peers import ProcessLost
from trainer.distributed.processes import Processes
from trainer.distributed.torchrun import Place
from trainer.guard import Rewind
from trainer.loop import Trainer
from trainer.optimizers import Muon


def deep() -> nn.Module:
    """The first matrix is cut along its rows, the others across them, the vectors not at all."""
    torch.manual_seed(0)
    layers = (nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 5), nn.Tanh())
    return nn.Sequential(*layers, nn.Unflatten(1, (1, 5)), nn.ConvTranspose1d(1, 2, 2), Mean())


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).mean(1, keepdim=True)


def cut_up(place: Place, *arguments: Any, **changes: Any) -> Run:
    settings: dict[str, Any] = {"model": deep(), "max_steps": 7, **changes}
    return trained(place, *arguments, processes=Processes(place=place, shard=True), **settings)


CASES: dict[str, Callable[[Place], Run]] = {
    "accumulate": partial(cut_up, accumulate=2),
    "loss that learns": lambda place: cut_up(place, loss=UncertaintyLoss(two_losses())),
    "layers": lambda place: cut_up(
        place,
        diagnostics=Diagnostics(activations=False),
        tags=("layers/0/grad_norm", "layers/0/update_ratio", "layers/2/weight_norm"),
    ),
    "nan in the second half": lambda place: cut_up(place, spoiled(entry=7, value=math.nan)),
    "rewound": lambda place: cut_up(
        place,
        spoiled(entry=7, value=math.nan, batches=(2, 3)),
        guard=Rewind(max_consecutive=1, every=2, recover_steps=2),
    ),
    "unused parameter": lambda place: cut_up(place, model=Partly()),
    "normalized": lambda place: cut_up(place, model=normalized()),
    "computed anew": lambda place: cut_up(place, model=normalized(), checkpoint_activations=True),
}
Both = tuple[dict[str, Run], list[dict[str, Run]]]


def clipped(place: Place, steps: int = 6) -> dict[str, Run]:
    """A run under each mode; the one without is what the others must differ from."""
    return {name: cut_up(place, clip=mode(), max_steps=steps) for name, mode in MODES.items()}


def runs(place: Place) -> dict[str, Run]:
    return {name: case(place) for name, case in CASES.items()} | clipped(place)


@pytest.fixture(scope="module")
def both() -> Both:
    """All cases in one process, and in two that are started once."""
    torch.set_num_threads(1)
    return runs(ALONE), together(runs)


@pytest.mark.parametrize("name", [*CASES, *MODES])
def test_two_processes_follow_one(both: Both, name: str) -> None:
    follow(both, name)


def follow(both: Both, name: str, tolerance: float = 1e-9) -> None:
    alone, (first, second) = both[0][name], (result[name] for result in both[1])
    assert close(alone, first, tolerance), "the first of two processes"
    assert first["weights"] == second["weights"], "the two of them, bit for bit"
    assert first["guard"] == second["guard"] == alone["guard"]
    assert first["status"] == "completed"
    assert len(first["rows"]) >= 6
    if name in MODES:
        binds = alone["weights"] != both[0]["none"]["weights"]
        assert binds or name == "none", f"{name} never bound: nothing is shown"


def test_a_bad_row_is_refused_and_a_rewind_goes_back_in_both(both: Both) -> None:
    for result in both[1]:
        assert result["nan in the second half"]["guard"]["skipped"] == 1
        assert result["rewound"]["guard"]["rewound"] == 1


@pytest.mark.soak
def test_every_clip_mode_follows_one_process_for_a_hundred_steps() -> None:
    torch.set_num_threads(1)
    hundred = partial(clipped, steps=100)
    two = hundred(ALONE), together(hundred, patience=900)
    for name in MODES:
        follow(two, name, 1e-5)


def test_every_configured_clip_is_among_those_that_are_tried() -> None:
    configured = {path.stem for path in (Path(__file__).parents[1] / "conf" / "clip").glob("*.yaml")}
    assert configured <= {name.split(" ")[0] for name in MODES}


def saving(place: Place, folder: Path, resume: Path | None = None, shard: bool = True) -> Run:
    """A run that saves after every three steps, with a snapshot in the checkpoint, from the third of an
    earlier one where there is one."""
    saves = Checkpoints(every_steps=3, every_seconds=None, keep=9)
    settings = {"checkpoints": saves, "max_steps": 6, "clip": AdaGC(1.01, warmup=2)}
    processes = Processes(place=place, shard=shard)
    run = trainer(place, deep(), guard=Rewind(every=2), processes=processes, **settings)
    if resume is not None:
        run.load_state_dict(checkpoint.load(resume / "checkpoints" / "step-00000003.ckpt"))
    run.fit(data(), folder / str(place.rank))
    states = run.optimizer.state.values()
    held = sum(value.numel() for state in states for value in state.values())
    return {"weights": flat(run.model), "held": held}


def refusing(place: Place, folder: Path) -> Run:
    """A run that keeps the third step, which it has refused, and ends."""
    processes = Processes(place=place, shard=True)
    run = trainer(place, deep(), max_steps=4, processes=processes)
    run.fit(spoiled(entry=7, value=math.nan), folder / str(place.rank))
    return {"skipped": run.guard.skipped}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[Run]]]:
    torch.set_num_threads(1)
    at = tmp_path_factory.mktemp("saved")
    alone = {"one": [saving(ALONE, at / "one")], "refused alone": [refusing(ALONE, at / "alone")]}

    def of_two(place: Place) -> dict[str, Run]:
        return {
            "cut up": saving(place, at / "cut up"),
            "cut up, again": saving(place, at / "again", at / "cut up" / "0"),
            "one, then cut up": saving(place, at / "one, then cut up", at / "one" / "0"),
            "cut up, then ddp": saving(place, at / "then ddp", at / "cut up" / "0", shard=False),
            "refused": refusing(place, at / "refused"),
        }

    two = together(of_two)
    after = {"cut up, then one": [saving(ALONE, at / "then one", at / "cut up" / "0")]}
    return at, alone | {name: [result[name] for result in two] for name in two[0]} | after


@pytest.mark.parametrize("name", ["cut up", "one, then cut up", "cut up, then one", "cut up, then ddp"])
def test_a_run_goes_on_cut_up_or_whole(saved: tuple[Path, dict[str, list[Run]]], name: str) -> None:
    _, found = saved
    expected = pytest.approx(found["one"][0]["weights"], rel=1e-9, abs=1e-9)
    assert all(run["weights"] == expected for run in found[name])


def test_a_run_that_is_cut_up_goes_on_bit_for_bit(saved: tuple[Path, dict[str, list[Run]]]) -> None:
    _, found = saved
    assert found["cut up, again"][0]["weights"] == found["cut up"][0]["weights"]


def test_a_checkpoint_is_that_of_one_process(saved: tuple[Path, dict[str, list[Run]]]) -> None:
    at, _ = saved
    name = Path("0", "checkpoints", "step-00000006.ckpt")
    one, two = (shapes(checkpoint.load(at / folder / name)) for folder in ("one", "cut up"))
    assert one == two
    assert any("taken" in key and "exp_avg" in key for key in one), "snapshots too"
    assert {path.name for path in (at / "cut up").iterdir()} == {"0"}, "only the first writes"


def test_a_refused_step_is_kept_whole(saved: tuple[Path, dict[str, list[Run]]]) -> None:
    at, _ = saved
    paths = [folder / "0" / "refused" / "step-00000003.pt" for folder in (at / "alone", at / "refused")]
    one, two = (checkpoint.load(path) for path in paths)
    assert shapes(one) == shapes(two)
    for name, value in one["modules"]["model"].items():
        torch.testing.assert_close(two["modules"]["model"][name], value, rtol=1e-9, atol=1e-9)
    ((inputs, _),) = two["batches"]
    assert inputs.isnan().nonzero().tolist() == [[7, 0]], "a row of the second process"
    assert not (at / "refused" / "1").exists()


def shapes(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, dict | list | tuple):
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        return {k: v for key, item in pairs for k, v in shapes(item, f"{name}/{key}").items()}
    return {name: (value.shape, value.dtype, type(value)) if isinstance(value, Tensor) else type(value)}


def test_each_process_keeps_its_part_of_the_moments(
    saved: tuple[Path, dict[str, list[Run]]],
) -> None:
    _, found = saved
    vectors = 2 * (8 + 5 + 2) + 6  # moments, and how many steps each of six parameters has made
    matrices = 2 * (3 * 8 + 8 * 5 + 2 * 2)
    assert found["one"][0]["held"] == vectors + matrices
    assert {run["held"] for run in found["cut up"]} == {vectors + matrices // 2}


def test_a_refused_step_changes_no_bit() -> None:
    def state(place: Place, steps: int) -> list[Any]:
        run = trainer(place, deep(), max_steps=steps, processes=Processes(place=place, shard=True))
        run.fit(spoiled(entry=7, value=math.nan))
        moments = [v.tolist() for s in run.optimizer.state.values() for v in s.values()]
        return [run.guard.skipped, flat(run.model), moments]

    for two, three in together(lambda place: (state(place, 2), state(place, 3))):
        assert (two[0], three[0]) == (0, 1)
        assert two[1:] == three[1:]


def test_a_process_that_is_killed_ends_the_other_and_is_named(tmp_path: Path) -> None:
    def run(place: Place) -> str:
        dies_at(3)(place)
        with pytest.raises(ProcessLost) as raised:
            trainer(place, processes=Processes(place=place, shard=True)).fit(data(), tmp_path)
        return str(raised.value)

    line, killed = together(run)
    assert killed is None
    assert line.startswith("process 1 (pid ")
    assert line.endswith(" is gone: the others end too")


class Mine:
    """A clip that does not say whether parts of gradients are enough for it."""

    norm_type = 2.0

    def state_dict(self) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"clip": Mine()}, "clip must say in_parts = True where each of 2 processes has a part"),
        ({"compile": "aot_eager"}, "compile must be false where each of 2 processes"),
        ({"diagnostics": Diagnostics(shares=True)}, r"diagnostics\.shares must be false where each of"),
        (
            {"model": nn.Conv2d(2, 2, 3), "channels_last": True},
            "channels_last must be false where each of 2 processes",
        ),
    ],
)
def test_what_needs_whole_tensors_is_refused(changes: dict[str, Any], line: str) -> None:
    place = Place(0, 2)
    with pytest.raises(ValueError, match=line):
        trainer(place, processes=Processes(place=place, shard=True), **changes)


@pytest.mark.parametrize("kind", [Muon, torch.optim.Adafactor])
def test_an_optimizer_of_matrices_is_refused(kind: Any) -> None:
    model, processes = deep(), Processes(place=Place(0, 2), shard=True)
    with pytest.raises(ValueError, match=f"optimizer must take each entry by itself .* {kind.__name__}"):
        Trainer(model, nn.MSELoss(), kind(model.parameters()), processes=processes)

"""Several processes save, go on, and end, as one does."""

from __future__ import annotations

import math
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from several import dies_at, together
from several_runs import ALONE, Run, data, flat, net, spoiled, trainer
from torch import Tensor, nn

from trainer import checkpoint
from trainer.checkpoint import Checkpoints
from trainer.clipping import ZClip
from trainer.distributed.peers import ProcessLost
from trainer.distributed.processes import Processes
from trainer.distributed.torchrun import Place
from trainer.refusals import refused_steps


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
    saves = Checkpoints(every_steps=5, every_seconds=None, keep=9)
    settings = {"checkpoints": saves, "max_steps": 20, **changes}
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


def test_a_refused_step_is_kept_with_the_rows_of_both(tmp_path: Path) -> None:
    def run(place: Place) -> None:
        trainer(place).fit(spoiled(entry=7, value=math.nan), tmp_path)

    together(run)
    (path,) = refused_steps(tmp_path / "refused")
    ((inputs, targets),) = checkpoint.load(path)["batches"]
    assert (len(inputs), len(targets)) == (8, 8)
    assert inputs.isnan().nonzero().tolist() == [[7, 0]], "a row of the second process"


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

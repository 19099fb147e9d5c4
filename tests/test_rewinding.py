"""Row 9 of the fault matrix, and going back in training: bad steps that do not end by themselves."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from saving import SavesAt
from test_faults_in_training import (
    ADAM,
    KINDS,
    OPTIMIZERS,
    REFUSING,
    SGD,
    build_guard,
    data,
    numbers,
    plain,
    prepared,
    same,
    state,
)
from test_loop import equal
from torch import nn

from trainer import checkpoint
from trainer.checkpoint import Checkpoints
from trainer.data.tensors import Batch, TensorData
from trainer.loop import Trainer

REWIND, SKIP = (ROOT / "conf" / "guard" / f"{name}.yaml" for name in ("rewind", "skip"))
EVERY, BAD, STEPS = 10, 53, 90
GONE_BACK = BAD + 5  # the step after the fifth that was refused


class Corrupting(TensorData):
    """Multiplies the weights of a model by a factor just before one of the steps: a fault of memory, or
    of a learning rate, that no refusal can mend."""

    net: nn.Module
    factor: float
    at: int

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        first = epoch * self.batches_per_epoch
        for number, batch in enumerate(super().batches(epoch, start), start=first + start):
            if number == self.at:
                with torch.no_grad():
                    for parameter in self.net.parameters():
                        parameter.mul_(self.factor)
            yield batch


def corrupting(net: nn.Module, factor: float, at: int = BAD) -> Corrupting:
    good = data(24, size=8)
    source = Corrupting(good.train, good.val, batch_size=8)
    source.net, source.factor, source.at = net, factor, at
    return source


def trained(
    guard: Path, factor: float, at: int = BAD, optimizer: Path = ADAM, **changes: Any
) -> tuple[Trainer, dict[str, Any]]:
    """A run whose weights are corrupted in the middle."""
    net = plain()
    changes = {"every": EVERY, **changes} if guard == REWIND else changes
    trainer = prepared(optimizer, build_guard(guard, **changes), STEPS, net=net)
    return trainer, trainer.fit(corrupting(net, factor, at))


def final_loss(summary: dict[str, Any]) -> float:
    return float(summary["metrics"]["val/loss"]["last"])


@functools.cache
def clean_loss() -> float:
    """That of the run that nothing happened to."""
    return final_loss(trained(REWIND, 1.0)[1])


@pytest.mark.parametrize("guard", REFUSING, ids=lambda path: path.stem)
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("kind", KINDS)
def test_many_bad_steps_end_the_run_as_diverged_with_finite_checkpoints(
    tmp_path: Path, kind: str, value: float, guard: Path
) -> None:
    fault = (kind, value, range(12, 1000))
    saves = Checkpoints(every_steps=5, every_seconds=None, keep=100)
    trainer = prepared(ADAM, build_guard(guard), 60, fault, checkpoints=saves)
    summary = trainer.fit(data(), tmp_path)
    times = 1 + summary["guard"]["rewound"]
    refused = build_guard(guard).max_consecutive + 1  # type: ignore[attr-defined]
    assert (summary["status"], summary["steps"]) == ("diverged", 12 + times * refused)
    assert summary["guard"]["skipped"] == times * refused
    assert f"{refused} refused step(s) in a row" in summary["reason"]
    paths = checkpoint.newest_first(tmp_path / "checkpoints")
    assert len(paths) >= 2
    for path in paths:
        saved = checkpoint.load(path)
        assert all(map(math.isfinite, numbers([saved["model"], saved["optimizer"]["state"]])))
    if times == 1:  # it did not go back
        before = prepared(ADAM, build_guard(guard), 12)
        before.fit(data())
        assert same(state(trainer), state(before))


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda path: path.stem)
def test_rewind_mends_weights_that_only_give_nan_where_skip_gives_up(optimizer: Path) -> None:
    _, skipping = trained(SKIP, 1e30, optimizer=optimizer)
    assert skipping["status"] == "diverged"
    trainer, rewinding = trained(REWIND, 1e30, optimizer=optimizer)
    assert rewinding["status"] == "completed"
    assert (rewinding["guard"]["rewound"], rewinding["guard"]["skipped"]) == (1, 5)
    assert max(map(abs, numbers(trainer.model.state_dict()))) < 100


@pytest.mark.parametrize("at", [40, 45, 46, 49, 50, 51, 54, 55, 56, 59])
def test_rewind_mends_finite_but_absurd_weights_whenever_it_happens(at: int) -> None:
    """Also where a snapshot is taken while the weights are already bad: the older one is used."""
    _, skipping = trained(SKIP, 1e4, at)
    _, rewinding = trained(REWIND, 1e4, at)
    assert rewinding["guard"]["rewound"] == 1
    assert final_loss(rewinding) < 4 * clean_loss() < 1e-3 * final_loss(skipping)


def test_going_back_restores_the_older_snapshot_bit_for_bit() -> None:
    net = plain()
    trainer = prepared(ADAM, build_guard(REWIND, every=EVERY), GONE_BACK, net=net)
    trainer.fit(corrupting(net, 1e30))
    until = prepared(ADAM, build_guard(REWIND), 40, net=plain())
    until.fit(data(24, size=8))
    assert trainer.step == GONE_BACK
    assert trainer.guard.rewound == 1
    assert same(state(trainer), state(until))


def test_the_rate_that_is_recorded_is_the_schedule_s_and_the_backoff_ends() -> None:
    trainer, summary = trained(REWIND, 1e30, recover_steps=20)
    assert {group["lr"] for group in trainer.optimizer.param_groups} == {0.005}
    assert summary["metrics"]["lr"]["best"] == summary["metrics"]["lr"]["last"] == 0.005
    assert trainer.guard.lr_factor == 1.0
    assert summary["guard"]["rewound"] == 1


def test_a_fault_that_stays_ends_the_run_after_the_last_rewind() -> None:
    guard = build_guard(REWIND, every=EVERY, max_rewinds=2)
    fault = ("loss", math.nan, range(BAD, 1000))
    trainer = prepared(ADAM, guard, STEPS, fault)
    summary = trainer.fit(data(24, size=8))
    assert summary["status"] == "diverged"
    assert summary["steps"] == BAD + 15  # five to each rewind, five to the end
    assert (summary["guard"]["rewound"], summary["guard"]["skipped"]) == (2, 15)
    assert all(map(math.isfinite, numbers(state(trainer))))


CUTS = (45, BAD + 2, GONE_BACK, GONE_BACK + 1, 60, 65, GONE_BACK + 20, 85)


def cuttable(optimizer: Path) -> tuple[Trainer, Corrupting]:
    """A run that is to go back, saving wherever it is to be cut, and its data."""
    net = plain()
    saves = SavesAt(*CUTS, GONE_BACK - 1)
    guard = build_guard(REWIND, every=EVERY, recover_steps=20)
    trainer = prepared(optimizer, guard, STEPS, net=net, checkpoints=saves)
    return trainer, corrupting(net, 1e30)


@functools.cache
def uncut(optimizer: Path, folder: Path) -> Trainer:
    """The run from its beginning to its end, with its checkpoints in the folder."""
    trainer, source = cuttable(optimizer)
    trainer.fit(source, folder)
    return trainer


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, Path]:
    return {path: tmp_path_factory.mktemp(path.stem) for path in OPTIMIZERS}


@pytest.mark.parametrize(
    ("optimizer", "cut"),
    [
        *((ADAM, at) for at in CUTS),
        *((path, GONE_BACK - 1) for path in OPTIMIZERS),
    ],
    ids=lambda value: value.stem if isinstance(value, Path) else value,
)
def test_a_run_cut_before_or_after_it_went_back_goes_on_bit_for_bit(
    optimizer: Path, cut: int, folders: dict[Path, Path], tmp_path: Path
) -> None:
    whole = uncut(optimizer, folders[optimizer])
    assert whole.guard.rewound == 1
    rest, source = cuttable(optimizer)
    saved = folders[optimizer] / "checkpoints" / f"step-{cut:08d}.ckpt"
    rest.load_state_dict(checkpoint.load(saved))
    assert (rest.step, rest.guard.rewound) == (cut, int(cut >= GONE_BACK))
    rest.fit(source, tmp_path)
    assert equal(rest.state_dict(), whole.state_dict())


@pytest.mark.parametrize("every", [1, 2, 3, 100])
def test_rewind_mends_with_any_cadence_of_snapshots(every: int) -> None:
    """No snapshot is taken of weights under suspicion, and there is one before the first step."""
    _, summary = trained(REWIND, 1e30, every=every)
    assert (summary["status"], summary["guard"]["rewound"]) == ("completed", 1)


@pytest.mark.parametrize("guard", REFUSING, ids=lambda path: path.stem)
def test_a_diverged_run_leaves_a_finite_checkpoint_at_any_cadence(tmp_path: Path, guard: Path) -> None:
    fault = ("loss", math.nan, range(12, 1000))
    prepared(ADAM, build_guard(guard), 200, fault).fit(data(), tmp_path)
    (path,) = checkpoint.newest_first(tmp_path / "checkpoints")
    assert all(map(math.isfinite, numbers(checkpoint.load(path)["model"])))


def test_weights_that_overflowed_do_not_replace_a_good_checkpoint(tmp_path: Path) -> None:
    saves = Checkpoints(every_steps=1, every_seconds=None, keep=2)
    fault = ("one gradient", 3e38, [1])
    guard = build_guard(SKIP)
    trainer = prepared(SGD, guard, 60, fault, net=plain(), checkpoints=saves)
    trainer.optimizer.param_groups[0]["lr"] = 5.0
    assert trainer.fit(data(), tmp_path)["status"] == "diverged"
    assert not all(map(math.isfinite, numbers(trainer.model.state_dict())))
    for path in checkpoint.newest_first(tmp_path / "checkpoints"):
        assert all(map(math.isfinite, numbers(checkpoint.load(path)["model"])))


def test_going_back_can_empty_the_optimizers_state() -> None:
    taken = {}
    for reset in (False, True):
        trainer, summary = trained(REWIND, 1e30, reset_momentum=reset)
        assert (summary["status"], summary["guard"]["rewound"]) == ("completed", 1)
        taken[reset] = max(int(state["step"]) for state in trainer.optimizer.state.values())
    assert taken[True] < taken[False]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda path: path.stem)
def test_every_optimizer_goes_on_from_an_empty_state(optimizer: Path) -> None:
    _, summary = trained(REWIND, 1e30, optimizer=optimizer, reset_momentum=True)
    assert (summary["status"], summary["guard"]["rewound"]) == ("completed", 1)

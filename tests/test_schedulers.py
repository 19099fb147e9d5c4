"""Every schedule of conf/scheduler against its written formula, point by point, in float64."""

from __future__ import annotations

import io
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from schedule_formulas import (
    FORMULAS,
    HORIZON,
    LR,
    PATHS,
    Numbers,
    Rates,
    build,
    cases,
    drive,
    one_cycle,
    optimizer,
    rates,
)

from trainer import schedulers
from trainer.schedulers import Schedule


@pytest.mark.parametrize(("path", "change"), cases())
def test_each_file_draws_its_written_formula(path: Path, change: Numbers) -> None:
    target = optimizer()
    (drawn,) = drive(build(path, change, target), target)
    numbers: Any = OmegaConf.to_container(OmegaConf.merge(OmegaConf.load(path), change))
    assert drawn == pytest.approx(rates(numbers), rel=1e-11, abs=1e-14)


def test_every_formula_belongs_to_a_file_that_is_there() -> None:
    names = {OmegaConf.load(path)._target_.rpartition(".")[2] for path in PATHS}
    assert FORMULAS.keys() == names


@pytest.mark.parametrize(("path", "change"), cases())
def test_every_parameter_group_follows_from_its_own_rate(path: Path, change: Numbers) -> None:
    if "min_lr" in change:
        return  # a rate, the same for every group
    single, double = optimizer(LR), optimizer(LR, LR / 8)
    (alone,) = drive(build(path, change, single), single)
    first, second = drive(build(path, change, double), double)
    assert first == alone
    assert second == pytest.approx([rate / 8 for rate in alone], rel=1e-11)


CUTS = [1, 4, 5, 6, 12, 31, 63, 249, 250, 264]


@pytest.mark.parametrize(("path", "change"), cases())
def test_a_schedule_saved_and_restored_goes_on_bit_for_bit(path: Path, change: Numbers) -> None:
    whole, target = optimizer(), optimizer()
    (expected,) = drive(build(path, change, whole), whole)
    schedule = build(path, change, target)
    for first, cut in pairwise([0, *CUTS, HORIZON.steps]):
        parts = {"optimizer": target.state_dict(), "schedule": schedule.state_dict()}
        file = io.BytesIO()
        torch.save(parts, file)
        file.seek(0)
        parts, target = torch.load(file, weights_only=True), optimizer()
        schedule = build(path, change, target)
        target.load_state_dict(parts["optimizer"])
        schedule.load_state_dict(parts["schedule"])
        (drawn,) = drive(schedule, target, first, cut)
        assert drawn == expected[first:cut], f"cut after {first} steps"


@pytest.mark.parametrize("setting", ["lr", "momentum"])
@pytest.mark.parametrize(("path", "change"), cases())
def test_a_rewind_leaves_the_schedule_in_place(path: Path, change: Numbers, setting: str) -> None:
    """The optimizer goes back to an earlier state; rate and momentum stay with the schedule."""
    whole, target = optimizer(), optimizer()
    (expected,) = drive(build(path, change, whole), whole, setting=setting)
    schedule = build(path, change, target)
    drive(schedule, target, 0, 3)
    earlier = target.state_dict()
    drive(schedule, target, 3, 252)
    with schedule.unmoved():
        target.load_state_dict(earlier)
    (rest,) = drive(schedule, target, 252, setting=setting)
    assert rest == expected[252:]


@pytest.mark.parametrize("kind", ["momentum", "betas"])
def test_one_cycle_moves_the_momentum_the_other_way(kind: str) -> None:
    target = optimizer() if kind == "momentum" else torch.optim.Adam([torch.zeros(2)], LR)
    schedule = schedulers.one_cycle(target, HORIZON, momentum=(0.9, 0.7))
    (drawn,) = drive(schedule, target, setting=kind)
    numbers = {"rise": 0.3, "shape": "cosine"}
    expected = [one_cycle(numbers, t, HORIZON.steps, [0.9, 0.7, 0.9]) for t in range(HORIZON.steps)]
    assert [m[0] if kind == "betas" else m for m in drawn] == pytest.approx(expected, rel=1e-12)
    if kind == "betas":
        assert {betas[1] for betas in drawn} == {0.999}


def test_one_cycle_stays_at_its_end_in_a_run_that_is_continued() -> None:
    target = optimizer()
    schedule = schedulers.one_cycle(target, HORIZON)
    drive(schedule, target)
    (after,) = drive(schedule, target, 0, 20)
    assert after == pytest.approx(20 * [LR / 25 / 1e4])


def test_a_constant_rate_is_the_same_number_for_ever() -> None:
    target = optimizer(0.1)
    schedule = Schedule.constant(target)
    assert set(drive(schedule, target)[0]) == {0.1}


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("mode", ["min", "max"])
def test_a_value_that_is_not_finite_is_no_improvement(mode: str, bad: float) -> None:
    target = optimizer()
    schedule = schedulers.plateau(target, HORIZON, mode=mode, patience=1)
    sign = 1 if mode == "min" else -1
    rates = []
    for value in (5.0, bad, bad, 4.0, 3.0, 2.0, 1.0):
        schedule.epoch_ended({"val/loss": sign * value if math.isfinite(value) else value})
        rates.append(target.param_groups[0]["lr"] / LR)
    assert rates == [1, 1, 0.5, 0.5, 0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    ("mode", "values", "factor"),
    [
        ("min", [2.0, 2.0, 2.0], 0.25),
        ("min", [-2.0, -2.0, -2.0], 0.25),
        ("max", [-2.0, -2.0, -2.0], 0.25),
        ("max", [-2.0, -2.0001, -2.0002], 0.25),
        ("min", [-2.0, -2.001, -2.002], 1.0),
        ("max", [-2.0, -1.999, -1.998], 1.0),
        ("min", [0.0, 0.0, 0.0], 0.25),
    ],
)
def test_a_plateau_is_one_whatever_its_sign(mode: str, values: Rates, factor: float) -> None:
    target = optimizer()
    schedule = schedulers.plateau(target, HORIZON, mode=mode, patience=0)
    for value in values:
        schedule.epoch_ended({"val/loss": value})
    assert target.param_groups[0]["lr"] == LR * factor


def test_a_plateau_watches_the_tag_it_was_given() -> None:
    target = optimizer()
    schedule = schedulers.plateau(target, HORIZON, monitor="val/psnr", mode="max", patience=0)
    for psnr in (10.0, 11.0, 12.0):
        schedule.epoch_ended({"val/loss": psnr, "val/psnr": psnr})
    assert target.param_groups[0]["lr"] == LR
    for _ in range(3):
        schedule.epoch_ended({"val/loss": 0.0})  # it waits for its own tag
    assert target.param_groups[0]["lr"] == LR


@pytest.mark.parametrize(
    ("factory", "numbers"),
    [
        (schedulers.step, {"step_size": 0}),
        (schedulers.step, {"step_size": 2.5}),
        (schedulers.step, {"gamma": 0}),
        (schedulers.exponential, {"gamma": -0.5}),
        (schedulers.exponential, {"gamma": math.nan}),
        (schedulers.exponential, {"interval": "batch"}),
        (schedulers.cosine, {"interval": None}),
        (schedulers.cosine, {"min_lr": -1e-9}),
        (schedulers.cosine, {"min_lr": math.inf}),
        (schedulers.plateau, {"mode": "median"}),
        (schedulers.plateau, {"factor": 1}),
        (schedulers.plateau, {"factor": 0}),
        (schedulers.plateau, {"patience": -1}),
        (schedulers.plateau, {"min_lr": "0"}),
        (schedulers.noam, {"warmup": 0}),
        (schedulers.noam, {"warmup": HORIZON.steps}),
        (schedulers.wsd, {"decay": 0}),
        (schedulers.wsd, {"decay": 1.01}),
        (schedulers.wsd, {"decay_shape": "square"}),
        (schedulers.wsd, {"min_lr": -1}),
        (schedulers.one_cycle, {"rise": 0}),
        (schedulers.one_cycle, {"rise": 1}),
        (schedulers.one_cycle, {"rise": 1 / HORIZON.steps}),
        (schedulers.one_cycle, {"first": 0.5}),
        (schedulers.one_cycle, {"last": 0}),
        (schedulers.one_cycle, {"shape": "cos"}),
        (schedulers.one_cycle, {"momentum": 0.9}),
        (schedulers.one_cycle, {"momentum": [0.9]}),
    ],
)
def test_a_number_out_of_range_is_refused_by_name(factory: Any, numbers: Numbers) -> None:
    (name,) = numbers
    with pytest.raises(ValueError, match=f"^{name} must be "):
        factory(optimizer(), HORIZON, **numbers)


def test_an_optimizer_without_momentum_is_refused_where_it_would_cycle() -> None:
    target = torch.optim.Adagrad([torch.zeros(2)])
    with pytest.raises(ValueError, match=r"^momentum must be null, got .* Adagrad has none"):
        schedulers.one_cycle(target, HORIZON)
    schedulers.one_cycle(target, HORIZON, momentum=None)
    with pytest.raises(ValueError, match=r"^momentum\[1\] must be >= 0 and < 1, got 1"):
        schedulers.one_cycle(optimizer(), HORIZON, momentum=(0.9, 1))

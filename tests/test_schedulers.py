"""Every schedule of conf/scheduler against its written formula, point by point, in float64."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra.utils
import pytest
import torch
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from trainer import checkpoint, schedulers
from trainer.schedulers import Horizon, Schedule

PATHS = sorted((ROOT / "conf" / "scheduler").glob("*.yaml"))
LR = 0.3
STEPS_PER_EPOCH, EPOCHS = 5, 13
HORIZON = Horizon(STEPS_PER_EPOCH * EPOCHS, EPOCHS, STEPS_PER_EPOCH)
METRIC = [3.0, 2.0, 1.0, 1.0, 1.5, math.nan, 2.0, 0.5, math.inf, 0.6, 0.7, 0.8, 0.9]

Numbers = dict[str, Any]
Rates = list[float]


def plateau_rates(c: Numbers, count: int) -> Rates:
    """The rule in words: a drop after more than `patience` epochs in a row without improvement."""
    rate, best, waited, rates = LR, math.inf, 0, []
    for epoch in range(count):
        rates.append(rate)
        value = METRIC[epoch] if c["mode"] == "min" else -METRIC[epoch]
        improved = math.isfinite(value) and value < best
        best, waited = (value, 0) if improved else (best, waited + 1)
        if waited > c["patience"]:
            rate, waited = max(rate * c["factor"], c["min_lr"]), 0
    return rates


def each(formula: Callable[[Numbers, int, int], float]) -> Callable[[Numbers, int], Rates]:
    return lambda c, count: [formula(c, t, count) for t in range(count)]


# By file name: (numbers, how many intervals the run has) to the rate in each of them.
FORMULAS: dict[str, Callable[[Numbers, int], Rates]] = {
    "none": each(lambda c, t, count: LR),
    "step": each(lambda c, t, count: LR * c["gamma"] ** (t // c["step_size"])),
    "exponential": each(lambda c, t, count: LR * c["gamma"] ** t),
    "cosine": each(
        lambda c, t, count: (c["min_lr"] + (LR - c["min_lr"]) * (1 + math.cos(math.pi * t / count)) / 2)
    ),
    "plateau": plateau_rates,
}
CHANGES: list[Numbers] = [
    {},
    {"interval": "step"},
    {"interval": "epoch"},
    {"step_size": 3, "gamma": 0.1},
    {"step_size": 1, "gamma": 1.5},
    {"min_lr": 0.01},
    {"patience": 0},
    {"patience": 1, "factor": 0.1, "min_lr": 0.005},
    {"patience": 2, "mode": "max"},
    {"patience": 0, "mode": "max"},
]


def cases() -> list[Any]:
    """Every file with its own numbers, and with every change that is of its numbers alone."""
    found = []
    for path, change in itertools.product(PATHS, CHANGES):
        if change.keys() <= OmegaConf.load(path).keys():
            found.append(pytest.param(path, change, id=f"{path.stem}-{change or 'as it is'}"))
    return found


def optimizer(*rates: float) -> torch.optim.Optimizer:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(2))], "lr": r} for r in rates or (LR,)]
    return torch.optim.SGD(groups)


def build(path: Path, change: Numbers, target: torch.optim.Optimizer) -> Schedule:
    config = OmegaConf.merge(OmegaConf.load(path), change)
    return hydra.utils.instantiate(config, _convert_="all")(target, horizon=HORIZON)


def drive(
    schedule: Schedule, target: torch.optim.Optimizer, first: int = 0, last: int = HORIZON.steps
) -> list[Rates]:
    """The rates of every step of the run, called as the loop calls: one list for each group."""
    drawn = []
    for step in range(first, last):
        drawn.append([group["lr"] for group in target.param_groups])
        schedule.step_ended()
        if (step + 1) % STEPS_PER_EPOCH == 0:
            schedule.epoch_ended({"val/loss": METRIC[step // STEPS_PER_EPOCH], "lr": 1.0})
    return [list(rates) for rates in zip(*drawn, strict=True)]


@pytest.mark.parametrize(("path", "change"), cases())
def test_each_file_draws_its_written_formula(path: Path, change: Numbers) -> None:
    assert path.stem in FORMULAS, f"write the formula of {path.name} into this test"
    target = optimizer()
    (drawn,) = drive(build(path, change, target), target)
    numbers = {**OmegaConf.to_container(OmegaConf.load(path)), **change}  # type: ignore[dict-item]
    by_step = numbers.get("interval") == "step"
    count = HORIZON.steps if by_step else EPOCHS
    expected = FORMULAS[path.stem](numbers, count)
    if not by_step:
        expected = [rate for rate in expected for _ in range(STEPS_PER_EPOCH)]
    assert drawn == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_every_formula_belongs_to_a_file_that_is_there() -> None:
    assert FORMULAS.keys() == {path.stem for path in PATHS}


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_every_parameter_group_follows_from_its_own_rate(path: Path) -> None:
    single, double = optimizer(LR), optimizer(LR, LR / 8)
    (alone,) = drive(build(path, {}, single), single)
    first, second = drive(build(path, {}, double), double)
    assert first == alone
    assert second == pytest.approx([rate / 8 for rate in alone], rel=1e-12)


@pytest.mark.parametrize("cut", [0, 1, 4, 5, 6, 31, 64])
@pytest.mark.parametrize(("path", "change"), cases())
def test_a_schedule_saved_and_restored_goes_on_bit_for_bit(
    tmp_path: Path, path: Path, change: Numbers, cut: int
) -> None:
    whole, first, second = optimizer(), optimizer(), optimizer()
    (expected,) = drive(build(path, change, whole), whole)
    schedule = build(path, change, first)
    if cut:
        drive(schedule, first, 0, cut)
    parts = {"optimizer": first.state_dict(), "schedule": schedule.state_dict()}
    checkpoint.save(tmp_path / "a.ckpt", parts)
    restored = build(path, change, second)
    parts = checkpoint.load(tmp_path / "a.ckpt")
    second.load_state_dict(parts["optimizer"])
    restored.load_state_dict(parts["schedule"])
    (rest,) = drive(restored, second, cut)
    assert rest == expected[cut:]


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
    ],
)
def test_a_number_out_of_range_is_refused_by_name(factory: Any, numbers: Numbers) -> None:
    (name,) = numbers
    with pytest.raises(ValueError, match=f"^{name} must be "):
        factory(optimizer(), HORIZON, **numbers)


LIMIT = st.none() | st.integers(1, 9)


@settings(deadline=None, max_examples=50)
@given(batches=st.integers(1, 9), accumulate=st.integers(1, 5), epochs=LIMIT, steps=LIMIT)
def test_the_horizon_is_what_the_loop_will_do(
    batches: int, accumulate: int, epochs: int | None, steps: int | None
) -> None:
    if epochs is None and steps is None:
        return
    done = started = 0
    while (epochs is None or started < epochs) and (steps is None or done < steps):
        started += 1
        for _ in range(0, batches, accumulate):
            done += steps is None or done < steps
    horizon = Horizon.of(batches, accumulate, epochs, steps)
    assert (horizon.steps, horizon.epochs) == (done, started)
    assert horizon.per_epoch == math.ceil(batches / accumulate)
    assert (horizon.count("step"), horizon.count("epoch")) == (done, started)


@pytest.mark.parametrize(
    ("epochs", "steps", "name"),
    [
        (None, None, "max_epochs"),
        (0, None, "max_epochs"),
        (1.5, 3, "max_epochs"),
        (True, None, "max_epochs"),
        (None, 0, "max_steps"),
        (3, -1, "max_steps"),
    ],
)
def test_a_run_without_an_end_has_no_horizon(epochs: Any, steps: Any, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be a whole number"):
        Horizon.of(10, 1, epochs, steps)

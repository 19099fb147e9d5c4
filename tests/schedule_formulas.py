"""The formulas of conf/scheduler, written out once more, and a run in miniature that draws them."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra.utils
import pytest
import torch
from conftest import ROOT
from omegaconf import OmegaConf

from trainer.schedulers import Horizon, Schedule

PATHS = sorted((ROOT / "conf" / "scheduler").glob("*.yaml"))
LR = 0.3
PER_EPOCH, EPOCHS = 5, 53
HORIZON = Horizon(PER_EPOCH * EPOCHS, EPOCHS, PER_EPOCH)
METRIC = 5 * [3.0, 2.0, 1.0, 1.0, 1.5, math.nan, 2.0, 0.5, math.inf, 0.6, 0.7, 0.8, 0.9]

Numbers = dict[str, Any]
Rates = list[float]
# The numbers, the step that the schedule begins with and the one it ends before, to the rate in each.
Formula = Callable[[Numbers, int, int], Rates]


def each(formula: Callable[[Numbers, int, int], float]) -> Formula:
    """From (numbers, t, T) to the rate, t counting intervals from 0 to T."""

    def rates(c: Numbers, first: int, last: int) -> Rates:
        unit = 1 if c.get("interval", "step") == "step" else PER_EPOCH
        count = (last - 1) // unit - first // unit + 1
        return [formula(c, step // unit - first // unit, count) for step in range(first, last)]

    return rates


def plateau(c: Numbers, first: int, last: int) -> Rates:
    """The rule in words: a drop after more than `patience` epochs in a row without improvement."""
    rate, best, waited, rates = LR, math.inf, 0, []
    for step in range(first, last):
        if step > first and step % PER_EPOCH == 0:
            value = METRIC[step // PER_EPOCH - 1] * (1 if c["mode"] == "min" else -1)
            improved = math.isfinite(value) and value < best
            best, waited = (value, 0) if improved else (best, waited + 1)
            if waited > c["patience"]:
                rate, waited = max(rate * c["factor"], c["min_lr"]), 0
        rates.append(rate)
    return rates


def cosine(c: Numbers, t: int, count: int) -> float:
    return float(c["min_lr"] + (LR - c["min_lr"]) * (1 + math.cos(math.pi * t / count)) / 2)


def wsd(c: Numbers, t: int, count: int) -> float:
    decay = round(c["decay"] * (count + c["warmup"]))
    x = max(0, t - (count - decay)) / decay
    falls = {"linear": 1 - x, "cosine": (1 + math.cos(math.pi * x)) / 2, "sqrt": 1 - x**0.5}
    return float(c["min_lr"] + (LR - c["min_lr"]) * falls[c["decay_shape"]])


def between(start: float, end: float, x: float, shape: str) -> float:
    return start + (end - start) * (x if shape == "linear" else (1 - math.cos(math.pi * x)) / 2)


def one_cycle(c: Numbers, t: int, count: int, ends: Rates | None = None) -> float:
    first, peak, last = ends or (LR / c["first"], LR, LR / (c["first"] * c["last"]))
    top = c["rise"] * count - 1
    if t <= top:
        return between(first, peak, t / top, c["shape"])
    return between(peak, last, (t - top) / (count - 1 - top), c["shape"])


def noam(c: Numbers, t: int, count: int) -> float:
    w, s = c["warmup"], t + 1
    return float(LR * w**0.5 * min(s**-0.5, s * w**-1.5))


def sequential(c: Numbers, first: int, last: int) -> Rates:
    unit = 1 if c["interval"] == "step" else PER_EPOCH
    starts = [first, *(first + unit * n for n in itertools.accumulate(c["lengths"])), last]
    parts = zip(c["schedules"], itertools.pairwise(starts), strict=True)
    return [rate for part, span in parts for rate in rates(part, *span)]


FORMULAS: dict[str, Formula] = {
    "constant": each(lambda c, t, count: LR),
    "step": each(lambda c, t, count: LR * c["gamma"] ** (t // c["step_size"])),
    "exponential": each(lambda c, t, count: LR * c["gamma"] ** t),
    "cosine": each(cosine),
    "plateau": plateau,
    "noam": each(noam),
    "wsd": each(wsd),
    "one_cycle": each(one_cycle),
    "sequential": sequential,
}


def rates(c: Numbers, first: int = 0, last: int = HORIZON.steps) -> Rates:
    """What a node of conf/scheduler says the rate is in each step, its warm-up first."""
    name = c["_target_"].rpartition(".")[2]
    warmup = 0 if name == "noam" else c.get("warmup", 0)
    x = [(t + 1) / (warmup + 1) for t in range(warmup)]
    warm = [between(0, LR, each, c.get("warmup_shape", "linear")) for each in x]
    return warm + FORMULAS[name](c, first + warmup, last)


def node(name: str, **changes: Any) -> Numbers:
    """The content of a file, changed."""
    config = OmegaConf.merge(OmegaConf.load(ROOT / "conf" / "scheduler" / f"{name}.yaml"), changes)
    return OmegaConf.to_container(config)  # type: ignore[return-value]


MIXED = {
    "schedules": [
        node("plateau", patience=0),
        node("one_cycle"),
        node("wsd", warmup=11),
        node("exponential", warmup=3, warmup_shape="cosine"),
    ],
    "lengths": [4, 20, 21],
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
    {"warmup": 1},
    {"warmup": 7},
    {"warmup": 7, "warmup_shape": "cosine"},
    {"warmup": 10, "interval": "epoch"},
    {"warmup": 10, "patience": 0},
    {"warmup": 13, "patience": 0},
    {"warmup": HORIZON.steps - 1, "min_lr": 0.01, "interval": "step"},
    {"decay_shape": "linear", "min_lr": 0.02},
    {"decay_shape": "cosine", "warmup": 100, "decay": 165 / 265},
    {"shape": "linear", "rise": 0.5, "momentum": None},
    {"first": 1, "last": 1},
    {"lengths": [1]},
    {"lengths": [7], "interval": "step"},
    MIXED,
    {**MIXED, "lengths": [12, 51, 52], "interval": "step"},
]


@functools.cache
def cases() -> list[Any]:
    """Every file with its own numbers, and with every change that is of its numbers alone."""
    found = []
    known = {path: OmegaConf.load(path).keys() for path in PATHS}
    for path, (index, change) in itertools.product(PATHS, enumerate(CHANGES)):
        if change.keys() <= known[path]:
            numbers = {key: value for key, value in change.items() if key != "schedules"}
            found.append(pytest.param(path, change, id=f"{path.stem}-{index}-{numbers or 'as it is'}"))
    return found


def optimizer(*rates: float) -> torch.optim.Optimizer:
    """One parameter group for each rate."""
    groups = [{"params": [torch.nn.Parameter(torch.zeros(2))], "lr": r} for r in rates or (LR,)]
    return torch.optim.SGD(groups, momentum=0.5)


def build(path: Path, change: Numbers, target: torch.optim.Optimizer) -> Schedule:
    """The schedule of a file, its numbers changed."""
    config = OmegaConf.merge(OmegaConf.load(path), change)
    schedule = hydra.utils.instantiate(config, _convert_="all")(target, horizon=HORIZON)
    assert isinstance(schedule, Schedule)
    return schedule


def drive(
    schedule: Schedule,
    target: torch.optim.Optimizer,
    first: int = 0,
    last: int = HORIZON.steps,
    setting: str = "lr",
) -> list[Rates]:
    """A setting in every step of the run, called as the loop calls: one list for each group."""
    drawn = []
    for step in range(first, last):
        drawn.append([group[setting] for group in target.param_groups])
        schedule.step_ended()
        if (step + 1) % PER_EPOCH == 0:
            schedule.epoch_ended({"val/loss": METRIC[step // PER_EPOCH], "lr": 1.0})
    return [list(rates) for rates in zip(*drawn, strict=True)]

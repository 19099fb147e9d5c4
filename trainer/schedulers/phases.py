"""Schedules of several phases over the whole run: Noam, WSD, one-cycle."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, OneCycleLR

from trainer import checks
from trainer.schedulers.schedule import Horizon, Schedule
from trainer.schedulers.warmup import warmed

# From 1 at x = 0 to 0 at x = 1.
FALLS: dict[str, Callable[[float], float]] = {
    "linear": lambda x: 1 - x,
    "cosine": lambda x: (1 + math.cos(math.pi * x)) / 2,
    "sqrt": lambda x: 1 - math.sqrt(x),
}
ANNEALS: dict[str, Literal["cos", "linear"]] = {"cosine": "cos", "linear": "linear"}


def noam(optimizer: Optimizer, horizon: Horizon, warmup: int = 100) -> Schedule:
    """α_t = α₀ · √w · min(s^−½, s · w^−1.5), s = t + 1, t in steps (arXiv 1706.03762, section 5.3).

    The paper's factor is chosen so that α₀ is the peak, in step w; s counts from 1, so that the first
    step is α₀ / w and not 0^−½.

    Args:
        optimizer: whose learning rate is scheduled.
        horizon: length of the run.
        warmup: w, steps of linear rise, >= 1.
    """
    remedy = f"the run has {horizon.steps} steps"
    w = checks.whole("warmup", warmup, at_least=1, below=horizon.steps, remedy=remedy)

    def factor(t: int) -> float:
        return min(math.sqrt(w / (t + 1)), (t + 1) / w)

    return Schedule(LambdaLR(optimizer, factor), "step")


def wsd(
    optimizer: Optimizer,
    horizon: Horizon,
    decay: float = 0.2,
    decay_shape: str = "sqrt",
    min_lr: float = 0.0,
    warmup: int = 0,
    warmup_shape: str = "linear",
) -> Schedule:
    """Warm-up, stable, decay: α₀, and over the last D steps α_min + (α₀ − α_min) · f(x), x from 0 to 1.

    f is 1 − x (linear), (1 + cos(π x))/2 (cosine) or 1 − √x (sqrt). arXiv 2404.06395, section 4; the
    square root is from arXiv 2405.18392.

    Args:
        optimizer: whose learning rate is scheduled.
        horizon: length of the run.
        decay: D as a share of the run, > 0.
        decay_shape: "linear", "cosine" or "sqrt".
        min_lr: α_min, in units of the learning rate, >= 0.
        warmup: steps of warm-up before it, see `trainer.schedulers.warmup.warmed`.
        warmup_shape: "linear" or "cosine".
    """
    fall = FALLS[checks.choice("decay_shape", decay_shape, tuple(FALLS))]
    floor = checks.number("min_lr", min_lr, at_least=0)
    last = max(1, round(checks.number("decay", decay, above=0) * horizon.steps))

    def build(optimizer: Optimizer, left: Horizon) -> Schedule:
        stable = left.steps - last
        if stable < 0:
            most = f"{left.steps / horizon.steps:.4g}"
            raise ValueError(f"decay must be <= {most}, got {decay}; it is what the warm-up leaves")

        def factor(base: float, t: int) -> float:
            share = floor / base
            return share + (1 - share) * fall(min(max(0, t - stable) / last, 1))

        rates = [group["lr"] for group in optimizer.param_groups]
        return Schedule(LambdaLR(optimizer, [partial(factor, rate) for rate in rates]), "step")

    return warmed(build, optimizer, horizon, warmup, warmup_shape)


class _OneCycle(OneCycleLR):
    """Stays at its end, where torch's raises: a run may be continued beyond its first horizon."""

    def step(self, epoch: int | None = None) -> None:
        if self.last_epoch + 1 < self.total_steps:
            super().step(epoch)


def one_cycle(
    optimizer: Optimizer,
    horizon: Horizon,
    rise: float = 0.3,
    first: float = 25.0,
    last: float = 1e4,
    shape: str = "cosine",
    momentum: Sequence[float] | None = (0.95, 0.85),
) -> Schedule:
    """Up from α₀/first to α₀ at t = rise·T − 1, down to α₀/(first·last) at T − 1; t in steps, T the run.

    The momentum goes the other way (Smith 2017, arXiv 1708.07120; in two phases, as torch has it).

    Args:
        optimizer: whose learning rate is scheduled; α₀ is the peak.
        horizon: length of the run.
        rise: share of the run in which the learning rate rises, in (0, 1), more than one step.
        first: the peak over the first learning rate, >= 1.
        last: the first learning rate over the last, >= 1.
        shape: of both ways, "cosine" or "linear".
        momentum: the optimizer's momentum or β₁ at the two ends and at the peak; None leaves it alone.
    """
    share = checks.number("rise", rise, above=0, below=1)
    if share * horizon.steps <= 1:
        rule = f"more than one of the run's {horizon.steps} step(s)"
        raise ValueError(f"rise must be {rule}, got {rise!r}; use scheduler=cosine for such a run")
    cycles = _momenta(optimizer, momentum)
    scheduler = _OneCycle(
        optimizer,
        [group["lr"] for group in optimizer.param_groups],
        total_steps=horizon.steps,
        pct_start=share,
        anneal_strategy=ANNEALS[checks.choice("shape", shape, tuple(ANNEALS))],
        div_factor=checks.number("first", first, at_least=1),
        final_div_factor=checks.number("last", last, at_least=1),
        **cycles,
    )
    return Schedule(scheduler, "step")


def _momenta(optimizer: Optimizer, momentum: Sequence[float] | None) -> dict[str, Any]:
    if momentum is None:
        return {"cycle_momentum": False}
    if not isinstance(momentum, Sequence) or len(momentum) != 2:
        raise ValueError(f"momentum must be two numbers or null, got {momentum!r}")
    for index, value in enumerate(momentum):
        checks.number(f"momentum[{index}]", value, at_least=0, below=1)
    if not optimizer.defaults.keys() & {"momentum", "betas"}:
        name = type(optimizer).__name__
        raise ValueError(f"momentum must be null, got {momentum!r}; {name} has none that could cycle")
    return {"cycle_momentum": True, "max_momentum": momentum[0], "base_momentum": momentum[1]}

"""Schedules of one formula: constant, step, exponential, cosine."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, StepLR

from trainer import checks
from trainer.schedulers.schedule import INTERVALS, Horizon, Schedule
from trainer.schedulers.warmup import warmed


def constant(
    optimizer: Optimizer, horizon: Horizon, warmup: int = 0, warmup_shape: str = "linear"
) -> Schedule:
    """α_t = α₀.

    Args:
        optimizer: whose learning rate is scheduled.
        horizon: length of the run.
        warmup: steps of warm-up before it, see `trainer.schedulers.warmup.warmed`.
        warmup_shape: "linear" or "cosine".
    """

    def build(optimizer: Optimizer, horizon: Horizon) -> Schedule:
        return Schedule.constant(optimizer)

    return warmed(build, optimizer, horizon, warmup, warmup_shape)


def step(
    optimizer: Optimizer,
    horizon: Horizon,
    step_size: int = 10,
    gamma: float = 0.5,
    interval: str = "epoch",
    warmup: int = 0,
    warmup_shape: str = "linear",
) -> Schedule:
    """α_t = α₀ · gamma^⌊t / step_size⌋.

    Args:
        optimizer: whose learning rate is scheduled.
        horizon: length of the run.
        step_size: intervals between two drops, >= 1.
        gamma: factor of one drop, > 0.
        interval: what t counts, "step" or "epoch".
        warmup: steps of warm-up before it, see `trainer.schedulers.warmup.warmed`.
        warmup_shape: "linear" or "cosine".
    """
    size = checks.whole("step_size", step_size, at_least=1)
    factor = checks.number("gamma", gamma, above=0)

    def build(optimizer: Optimizer, horizon: Horizon) -> Schedule:
        return Schedule(StepLR(optimizer, size, factor), interval)

    return warmed(build, optimizer, horizon, warmup, warmup_shape)


def exponential(
    optimizer: Optimizer,
    horizon: Horizon,
    gamma: float = 0.95,
    interval: str = "epoch",
    warmup: int = 0,
    warmup_shape: str = "linear",
) -> Schedule:
    """α_t = α₀ · gamma^t.

    Args:
        optimizer: whose learning rate is scheduled.
        horizon: length of the run.
        gamma: factor per interval, > 0.
        interval: what t counts, "step" or "epoch".
        warmup: steps of warm-up before it, see `trainer.schedulers.warmup.warmed`.
        warmup_shape: "linear" or "cosine".
    """
    factor = checks.number("gamma", gamma, above=0)

    def build(optimizer: Optimizer, horizon: Horizon) -> Schedule:
        return Schedule(ExponentialLR(optimizer, factor), interval)

    return warmed(build, optimizer, horizon, warmup, warmup_shape)


def cosine(
    optimizer: Optimizer,
    horizon: Horizon,
    min_lr: float = 0.0,
    interval: str = "step",
    warmup: int = 0,
    warmup_shape: str = "linear",
) -> Schedule:
    """α_t = α_min + (α₀ − α_min) · (1 + cos(π t / T)) / 2 (arXiv 1608.03983).

    Args:
        optimizer: whose learning rate is scheduled.
        horizon: length of the run; its number of intervals, without the warm-up's, is T.
        min_lr: α_min, in units of the learning rate, >= 0.
        interval: what t counts, "step" or "epoch".
        warmup: steps of warm-up before it, see `trainer.schedulers.warmup.warmed`.
        warmup_shape: "linear" or "cosine".
    """
    floor = checks.number("min_lr", min_lr, at_least=0)
    checks.choice("interval", interval, INTERVALS)

    def build(optimizer: Optimizer, horizon: Horizon) -> Schedule:
        return Schedule(CosineAnnealingLR(optimizer, horizon.count(interval), floor), interval)

    return warmed(build, optimizer, horizon, warmup, warmup_shape)

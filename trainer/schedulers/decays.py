"""Schedules of one formula: constant, step, exponential, cosine."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, StepLR

from trainer import checks
from trainer.schedulers.schedule import INTERVALS, Horizon, Schedule


def constant(optimizer: Optimizer, horizon: Horizon) -> Schedule:
    """α_t = α₀."""
    return Schedule.constant(optimizer)


def step(
    optimizer: Optimizer,
    horizon: Horizon,
    step_size: int = 10,
    gamma: float = 0.5,
    interval: str = "epoch",
) -> Schedule:
    """α_t = α₀ · gamma^⌊t / step_size⌋.

    Args:
        optimizer: whose learning rate is scheduled.
        horizon: length of the run.
        step_size: intervals between two drops, >= 1.
        gamma: factor of one drop, > 0.
        interval: what t counts, "step" or "epoch".
    """
    size = checks.whole("step_size", step_size, at_least=1)
    return Schedule(StepLR(optimizer, size, checks.number("gamma", gamma, above=0)), interval)


def exponential(
    optimizer: Optimizer, horizon: Horizon, gamma: float = 0.95, interval: str = "epoch"
) -> Schedule:
    """α_t = α₀ · gamma^t.

    Args:
        optimizer: whose learning rate is scheduled.
        horizon: length of the run.
        gamma: factor per interval, > 0.
        interval: what t counts, "step" or "epoch".
    """
    factor = checks.number("gamma", gamma, above=0)
    return Schedule(ExponentialLR(optimizer, factor), interval)


def cosine(
    optimizer: Optimizer, horizon: Horizon, min_lr: float = 0.0, interval: str = "step"
) -> Schedule:
    """α_t = α_min + (α₀ − α_min) · (1 + cos(π t / T)) / 2, T the whole run (arXiv 1608.03983).

    Args:
        optimizer: whose learning rate is scheduled.
        horizon: length of the run; its number of intervals is T.
        min_lr: α_min, in units of the learning rate, >= 0.
        interval: what t counts, "step" or "epoch".
    """
    floor = checks.number("min_lr", min_lr, at_least=0)
    steps = horizon.count(checks.choice("interval", interval, INTERVALS))
    return Schedule(CosineAnnealingLR(optimizer, steps, floor), interval)

"""A warm-up in front of any schedule."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from trainer import checks
from trainer.schedulers.schedule import Horizon, Schedule
from trainer.schedulers.sequence import Build, Chain

SHAPES = ("linear", "cosine")


def warmed(
    build: Build, optimizer: Optimizer, horizon: Horizon, warmup: int, warmup_shape: str
) -> Schedule:
    """α_t = α₀ · x for t < w, or α₀ · (1 − cos(π x))/2, with x = (t + 1)/(w + 1); then the schedule.

    No step is at 0, and step w is the first at α₀. The schedule begins there, with what is left of the
    run as its horizon: a cosine comes down over T − w steps.

    Args:
        build: makes the schedule from the optimizer and the rest of the horizon.
        optimizer: whose learning rate is scheduled.
        horizon: length of the run.
        warmup: w, in steps whatever interval the schedule moves by; 0 for none.
        warmup_shape: "linear" or "cosine".

    Raises:
        ValueError: if the warm-up is as long as the run or longer, or as the schedule does.
    """
    linear = checks.choice("warmup_shape", warmup_shape, SHAPES) == "linear"
    remedy = f"the run has {horizon.steps} steps"
    steps = checks.whole("warmup", warmup, below=horizon.steps, remedy=remedy)
    if steps == 0:
        return build(optimizer, horizon)

    def rise(t: int) -> float:
        x = (t + 1) / (steps + 1)
        return x if linear else (1 - math.cos(math.pi * x)) / 2

    def ramp(optimizer: Optimizer, horizon: Horizon) -> Schedule:
        return Schedule(LambdaLR(optimizer, rise), "step")

    return Chain(optimizer, horizon, [ramp, build], [0, steps])

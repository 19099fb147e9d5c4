"""A schedule that watches a metric."""

from __future__ import annotations

from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

from trainer import checks
from trainer.schedulers.schedule import Horizon, Schedule
from trainer.schedulers.warmup import warmed


def plateau(
    optimizer: Optimizer,
    horizon: Horizon,
    monitor: str = "val/loss",
    mode: str = "min",
    factor: float = 0.5,
    patience: int = 10,
    min_lr: float = 0.0,
    warmup: int = 0,
    warmup_shape: str = "linear",
) -> Schedule:
    """α ← α · factor once ``monitor`` has not improved for more than ``patience`` epochs.

    Args:
        optimizer: whose learning rate is scheduled.
        horizon: length of the run.
        monitor: recorded tag, read at the end of every epoch.
        mode: "min" if smaller is better, "max" if larger is.
        factor: of one drop, in (0, 1).
        patience: epochs without improvement that are let pass.
        min_lr: the learning rate is not lowered beyond it, >= 0.
        warmup: steps of warm-up before it, see `trainer.schedulers.warmup.warmed`; the metric is watched
            from its end on.
        warmup_shape: "linear" or "cosine".
    """
    rule: dict[str, Any] = {
        "mode": checks.choice("mode", mode, ("min", "max")),
        "factor": checks.number("factor", factor, above=0, below=1),
        "patience": checks.whole("patience", patience),
        "min_lr": checks.number("min_lr", min_lr, at_least=0),
        "threshold": 0.0,
        "eps": 0.0,  # torch's 1e-8 would be in the way of small rates
    }

    def build(optimizer: Optimizer, horizon: Horizon) -> Schedule:
        return Schedule(ReduceLROnPlateau(optimizer, **rule), "epoch", monitor)

    return warmed(build, optimizer, horizon, warmup, warmup_shape)

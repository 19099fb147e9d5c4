"""Finished sweeps, made up: what a report is tested with."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

from trainer.sweeps.jobs import SweptJob

LOST = math.inf


def job(
    name: int, overrides: list[str], value: float | None, *, higher: bool = False, **more: Any
) -> SweptJob:
    """A job that ended with this value of its objective and its losses; inf: diverged, None: failed."""
    status = "failed" if value is None else "diverged" if math.isinf(value) else "completed"
    objective = {"tag": "val/loss", "value": value, "higher_is_better": higher}
    summary = {
        "status": status,
        "reason": {"failed": "it broke", "diverged": "the loss is NaN"}.get(status, ""),
        "objective": None if value is None else objective,
        "metrics": {
            "val/loss": {"last": value},
            "train/loss": {"first": more.pop("first", 2.0), "last": value},
            "lr": {"last": 0.0},
        },
        "grad_norm": {"max": 3.0},
        "spikes": {"loss": more.pop("spikes", 0.0)},
        "guard": {"skipped": more.pop("skipped", 0), "rewound": 0},
    }
    return SweptJob(overrides, Path("sweep") / str(name), summary | more)


def sweep(value: Callable[..., float | None], higher: bool = False, **keys: list[Any]) -> list[SweptJob]:
    """All combinations of the keys, whose dots are typed as two underscores."""
    jobs = []
    for number, values in enumerate(product(*keys.values())):
        typed = [f"{key.replace('__', '.')}={one}" for key, one in zip(keys, values, strict=True)]
        reached = value(**dict(zip(keys, values, strict=True)))
        jobs.append(job(number, ["model=mlp", *typed], reached, higher=higher))
    return jobs

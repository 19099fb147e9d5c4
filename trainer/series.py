"""The record of a run as arrays, for whoever draws it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Series = dict[str, tuple[Array, Array]]


def read_series(path: Path) -> tuple[Series, int]:
    """Every tag's steps and values (null as NaN) sorted by step, and how many steps there are."""
    points: dict[str, dict[int, float]] = {}
    steps = set()
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
        except ValueError:  # a killed run may leave half a line
            continue
        step = record.pop("step")
        steps.add(step)
        for tag, value in record.items():
            # A step walked twice, after a rewind or a resume, counts as it went the second time.
            points.setdefault(tag, {})[step] = math.nan if value is None else value
    arrays = {tag: np.array(sorted(values.items()), float).T for tag, values in points.items()}
    return {t: (x, y) for t, (x, y) in arrays.items() if np.isfinite(y).any()}, len(steps)

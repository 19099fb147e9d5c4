"""The jobs of a sweep on one scale: their values, their order, their colours."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from trainer.pictures.comparison_axes import Scale
from trainer.pictures.drawing import RED
from trainer.sweeps.comparison import Entry

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

FAR = 10.0
PALE = 0.88  # where the colours end, before they are too pale to see


@dataclass(frozen=True, slots=True)
class Field:
    """The jobs with a result, and the scale they are judged on.

    Attributes:
        values: the objective of each; NaN for one that diverged, or is far off the scale.
        ranks: 0 for the best, each but once.
        shares: of the jobs with a value, how many are better, equal ones counted half.
        scale: with a margin for those without a value.
        lost: what the margin is for; "" where there is none.
    """

    values: list[float]
    ranks: list[int]
    shares: list[float]
    scale: Scale
    lost: str

    def colour(self, job: int) -> Any:
        """From dark for the best to pale for the worst; red for those off the scale."""
        if math.isnan(self.values[job]):
            return RED
        return _colours()(PALE * self.shares[job])

    def finish(self, axes: Axes) -> None:
        """The y axis of the objective; without ticks where no job has a value."""
        axes.set_yscale(self.scale.kind)
        axes.set_ylim(*self.scale.limits)
        self.scale.tick(axes.yaxis)
        if all(map(math.isnan, self.values)):
            axes.set_yticks([])


@cache
def _colours() -> Colormap:
    """One for all: each that matplotlib hands out is a copy, and makes its table anew."""
    from matplotlib import colormaps

    return colormaps["viridis"]


def field_of(jobs: Sequence[Entry], higher: bool) -> Field:
    """How the jobs compare. One that is further from the best than 10 times the distance of the third
    quarter would leave the others no room, and is off the scale."""
    badness = [job.badness for job in jobs]
    finite = sorted(value for value in badness if math.isfinite(value))
    limit = math.inf
    if finite and (usual := finite[int(0.75 * (len(finite) - 1))] - finite[0]):
        limit = finite[0] + FAR * usual
    kept = [math.isfinite(value) and value <= limit for value in badness]
    values = [
        float(job.value or 0.0) if keep else math.nan for job, keep in zip(jobs, kept, strict=True)
    ]
    order = sorted(range(len(jobs)), key=lambda job: badness[job])
    ranks = [0] * len(jobs)
    for rank, job in enumerate(order):
        ranks[job] = rank
    sorted_kept = sorted(bad for bad, keep in zip(badness, kept, strict=True) if keep)
    last = max(1, len(sorted_kept) - 1)
    shares = [
        (bisect_left(sorted_kept, bad) + bisect_right(sorted_kept, bad) - 1) / (2 * last)
        for bad in badness
    ]
    off = any(math.isfinite(value) and value > limit for value in badness)
    gone = any(math.isinf(value) for value in badness)
    lost = " or ".join(["diverged"] * gone + ["off the scale"] * off)
    scale = Scale(values, 0.14 if lost else 0.0, higher, may_be_log=not higher)
    return Field(values, ranks, shares, scale, lost)

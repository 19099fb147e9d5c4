"""What every picture has in common: colours, lines that keep their peaks, ticks that people read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.series import Array, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

MOST_POINTS = 2000
WIDTH = 12.0  # inches
# From Okabe and Ito, which colour-blind readers tell apart.
BLUE, GREEN, ORANGE, RED, INK = "#0072B2", "#009E73", "#E69F00", "#C1121F", "#333333"
TERMS = ("#56B4E9", "#CC79A7", "#A79A00", "#8A8A8A")
STYLE: Any = {
    "font.size": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titley": 1.0,  # placed here, not searched for: that costs a third of the drawing
    "legend.frameon": False,
}


def line(axes: Axes, series: Series, tag: str, colour: str, label: str, **style: Any) -> None:
    """One tag against the step, where it was recorded; fewer points make a heavier line."""
    if tag in series:
        steps, values = thinned(*series[tag])
        look: dict[str, Any] = {"linewidth": 1.2 if len(steps) <= 300 else 0.7}
        look |= {"marker": "." if len(steps) <= 50 else "", "markersize": 4, **style}
        axes.plot(steps, values, color=colour, label=label, **look)


def thinned(steps: Array, values: Array) -> tuple[Array, Array]:
    """At most MOST_POINTS points that keep every peak, every dip and every gap."""
    bucket = math.ceil(3 * len(steps) / MOST_POINTS)
    if bucket <= 3:
        return steps, values
    whole = len(steps) // bucket * bucket
    rows = values[:whole].reshape(-1, bucket)
    finite = np.isfinite(rows)
    lowest = np.where(finite, rows, np.inf).argmin(axis=1)
    highest = np.where(finite, rows, -np.inf).argmax(axis=1)
    picks = np.stack([lowest, highest, finite.argmin(axis=1)]) + np.arange(0, whole, bucket)
    kept = np.unique(np.append(picks, len(steps) - 1))
    return steps[kept], values[kept]


def finish(axes: Axes, title: str, log_from: float = math.inf, legend: bool = False) -> None:
    """Title, ticks, legend; a logarithmic y axis where the data span more than that factor."""
    span = axes.dataLim
    logarithmic = span.y0 >= 0 and span.y1 > span.minposy * log_from
    axes.set_yscale("log" if logarithmic else "linear")
    ticks(axes.yaxis, math.log10(span.y1 / span.minposy) if logarithmic else 0.0)
    axes.set_title(title, pad=20 if legend else 6)
    if legend:  # above the axes, where it covers no data
        axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 0.99), ncols=6, borderaxespad=0.0)


def ticks(axis: Axis, decades: float = 0.0) -> None:
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    subs = (1, 2, 5) if decades < 1.6 else (1, 3) if decades < 2.6 else (1,)
    few = MaxNLocator(5, steps=[1, 2, 2.5, 5, 10])
    axis.set_major_locator(LogLocator(subs=subs, numticks=7) if decades > 0.8 else few)
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(plain)


def plain(value: float, _: float) -> str:
    if 1e4 <= abs(value) < 1e6:
        return f"{value / 1000:g}k"
    return f"{value:g}".replace("e+0", "e").replace("e+", "e").replace("e-0", "e-")

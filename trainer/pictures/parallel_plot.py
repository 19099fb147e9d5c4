"""Every job of a sweep as a line over what was swept: parallel coordinates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.pictures.drawing import INK, RED
from trainer.pictures.field import Field
from trainer.pictures.lanes import Lane

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Box = tuple[float, float, float, float]
BEND = np.linspace(0.0, 1.0, 25)


def draw_parallel(figure: Figure, box: Box, lanes: Sequence[Lane], field: Field, tag: str) -> None:
    """Draws an upright axis per key and one for the objective, and a line per job through them.

    Args:
        figure: to draw into.
        box: left, bottom, width and height of the lines, as shares of the figure.
        lanes: the axes of the keys.
        field: the jobs.
        tag: of the objective.
    """
    axes = figure.add_axes(box)
    axes.set(xlim=(0, len(lanes)), ylim=(0, 1))
    axes.axis("off")
    _lines(axes, lanes, field)
    for index, lane in enumerate(lanes):
        _stand(axes, index, lane)
    last = figure.add_axes((box[0] + box[2], box[1], 1e-6, box[3]))
    last.patch.set_alpha(0.0)
    last.spines["bottom"].set_visible(False)
    last.xaxis.set_visible(False)
    field.finish(last)
    last.yaxis.tick_right()
    axes.text(len(lanes), -0.045, tag, ha="center", va="top", weight="bold", color=INK)
    if field.lost:
        look: dict[str, Any] = {"textcoords": "offset points", "color": RED, "size": 7.5, "va": "center"}
        place = len(lanes), field.scale.place(0.5)
        axes.annotate(field.lost.replace(" or off ", "\nor off\n"), place, xytext=(8, 0), **look)


def _lines(axes: Axes, lanes: Sequence[Lane], field: Field) -> None:
    from matplotlib.collections import LineCollection

    # The better end of a bundle is that of the objective's axis: lines do not cross for nothing.
    ranks = [-rank if field.scale.at_low_end else rank for rank in field.ranks]
    columns = [lane.spread(ranks) for lane in lanes]
    columns.append(field.scale.shares(field.values, ranks))
    xs = np.concatenate([index + BEND for index in range(len(lanes))])
    bend = BEND * BEND * (3 - 2 * BEND)
    lines, looks = [], []
    for job in sorted(range(len(ranks)), key=lambda job: -field.ranks[job]):  # the best on top
        places = pairwise(column[job] for column in columns)
        ys = np.concatenate([first + (second - first) * bend for first, second in places])
        lines.append(np.column_stack([xs, ys]))
        lost = math.isnan(field.values[job])
        width = 0.8 if lost else 2.4 if field.ranks[job] == 0 else 1.3 if len(ranks) <= 20 else 1.0
        looks.append((field.colour(job), width, "dashed" if lost else "solid"))
    colours, widths, styles = zip(*looks, strict=True)
    look: dict[str, Any] = {"colors": colours, "linewidths": widths, "linestyles": styles, "alpha": 0.9}
    axes.add_collection(LineCollection(lines, clip_on=False, **look))


def _stand(axes: Axes, x: int, lane: Lane) -> None:
    """The upright axis of a key."""
    from matplotlib.patheffects import withStroke

    axes.plot([x, x], [0, 1], color=INK, lw=0.8, clip_on=False, zorder=3)
    axes.text(x, -0.045, lane.key, ha="center", va="top", weight="bold", color=INK)
    for place, label in zip(*lane.ticks(), strict=True):
        axes.plot([x], [place], "_", color=INK, ms=5, clip_on=False, zorder=3)
        halo: list[Any] = [withStroke(linewidth=2.5, foreground="white")]
        axes.annotate(
            label,
            (x, place),
            xytext=(-5, 0),
            textcoords="offset points",
            ha="right",
            va="center",
            size=8,
            path_effects=halo,
            zorder=4,
        )

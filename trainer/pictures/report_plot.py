"""The picture of a sweep's report: every job as a line over what was swept, and each key by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.pictures.comparison_axes import EDGE, FAINT, FOOT, GREY, head
from trainer.pictures.drawing import INK, RED, STYLE, WIDTH
from trainer.pictures.field import Field, field_of
from trainer.pictures.lanes import Lane
from trainer.pictures.parallel_plot import draw_parallel
from trainer.sweeps.comparison import Entry, settings_of, with_result
from trainer.sweeps.marginals import RANGES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HEAD, TALL, NAMES, LEFT, RIGHT = 0.6, 3.6, 0.45, 0.85, 0.85  # inches, these and the next
PANEL, GUTTER, ABREAST = 2.2, 0.3, 4


def draw_overview(jobs: Sequence[Entry], path: Path) -> Path | None:
    """Draws the jobs in parallel coordinates, and below them the objective over each key.

    Args:
        jobs: of the sweep; those without a result are not shown.
        path: of the PNG.

    Returns:
        The path; None where no key was swept, or no job has a result.
    """
    finished = with_result(jobs)
    settings = settings_of(finished)
    lanes = [Lane(key, settings) for key in dict.fromkeys(key for one in settings for key in one)]
    if not lanes:
        return None
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    objective = finished[0].summary["objective"]
    field = field_of(finished, objective["higher_is_better"])
    rows, several = -(-len(lanes) // ABREAST), len(lanes) > 1  # else the lines would repeat the panel
    height = HEAD + several * (TALL + NAMES + 0.35) + rows * (PANEL + FOOT + 0.35)
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), dpi=110)
        better = "more is better" if objective["higher_is_better"] else "less is better"
        told = f"a {'line and a ' * several}dot per job, dark: the best; diamond: median; {better}"
        head(figure, f"{objective['tag']}, {len(finished)} jobs", told)
        bottom = height - HEAD
        if several:
            bottom -= TALL
            box = LEFT / WIDTH, bottom / height, (WIDTH - LEFT - RIGHT) / WIDTH, TALL / height
            draw_parallel(figure, box, lanes, field, objective["tag"])
            bottom -= NAMES + 0.35
        _singles(figure, lanes, field, objective["tag"], bottom)
        figure.savefig(path, pil_kwargs={"compress_level": 3})
    return path


def _singles(figure: Figure, lanes: Sequence[Lane], field: Field, tag: str, top: float) -> None:
    """A panel for each key: every job, and the median of each value."""
    height = figure.get_figheight()
    abreast = min(ABREAST, len(lanes))
    width = (WIDTH - LEFT - EDGE - GUTTER * (abreast - 1)) / abreast
    for index, lane in enumerate(lanes):
        row, column = divmod(index, abreast)
        bottom = top - (row + 1) * PANEL - row * (FOOT + 0.35)
        left = LEFT + column * (width + GUTTER)
        axes = figure.add_axes((left / WIDTH, bottom / height, width / WIDTH, PANEL / height))
        _single(axes, lane, field)
        if column:
            axes.tick_params(axis="y", labelleft=False)
        else:
            axes.set_ylabel(tag)
        if field.lost and not index:
            told = f"×: {field.lost}"
            axes.text(0, 1.02, told, color=RED, size=7.5, transform=axes.transAxes)


def _single(axes: Axes, lane: Lane, field: Field) -> None:
    places = lane.spread(field.ranks, scattered=True)
    kept = [job for job, value in enumerate(field.values) if not math.isnan(value)]
    colours = [field.colour(job) for job in kept]
    axes.scatter(
        [places[job] for job in kept],
        [field.values[job] for job in kept],
        c=colours,
        s=16 if len(kept) <= 100 else 8,
        linewidths=0,
        zorder=2,
    )
    rows = _rows(lane)
    middles = [[field.values[job] for job in row if not math.isnan(field.values[job])] for row in rows]
    xs = [float(np.mean([lane.places[lane.typed[job]] for job in row])) for row in rows]
    shown = [(x, median(values)) for x, values in zip(xs, middles, strict=True) if values]
    if shown:
        look: dict[str, Any] = {
            "color": INK,
            "lw": 1.0,
            "marker": "D",
            "ms": 5,
            "mec": "white",
            "mew": 0.8,
        }
        axes.plot(*zip(*shown, strict=True), ls="-" if lane.numbers else "none", **look)
    if field.lost:
        axes.axhspan(*field.scale.lost, color=RED, alpha=0.06, lw=0)
        for x, row in zip(xs, rows, strict=True):
            lost = sum(math.isnan(field.values[job]) for job in row)
            if lost:
                told: dict[str, Any] = {
                    "transform": axes.get_xaxis_transform(),
                    "color": RED,
                    "size": 7.5,
                }
                axes.text(x, field.scale.place(0.5), f"×{lost}", ha="center", va="center", **told)
    axes.set_xlim(0, 1)
    field.finish(axes)
    where, labels = lane.ticks()
    crowded = sum(map(len, labels)) > 30
    axes.set_xticks(where, labels, rotation=30 if crowded else 0, ha="right" if crowded else "center")
    axes.set_xlabel(lane.key, color=GREY)
    axes.grid(axis="y", color=FAINT, lw=0.6)
    axes.set_axisbelow(True)


def _rows(lane: Lane) -> list[list[int]]:
    """The jobs by value; where each has its own, in six rows of neighbours."""
    order = sorted(range(len(lane.typed)), key=lambda job: lane.places[lane.typed[job]])
    if not lane.few:
        return [row.tolist() for row in np.array_split(order, RANGES)]
    return [[job for job in order if lane.typed[job] == level] for level in lane.levels]

"""The gradient's way through the layers over a run, as one PNG."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trainer.pictures.drawing import STYLE, WIDTH, plain, ticks
from trainer.series import Array, Series, read_series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = {
    "grad_norm": "Gradient norm of each layer",
    "update_ratio": "Update norm / weight norm of each layer",
}
MOST_COLUMNS, PALE = 600, "#E8E8E8"
LINE, HEAD, FOOT, LETTER, BAR = 0.19, 0.45, 0.5, 0.068, 1.0  # inches


def draw_layers(folder: Path) -> Path | None:
    """Draws ``folder/layers.png`` from the tags ``layers/<name>/grad_norm`` and ``…/update_ratio`` of
    metrics.jsonl: a heat map each, layers from input to output over steps. A row that is dark all along
    is a layer that hardly learns.

    Returns:
        The path; None where no such tag has two logged steps.
    """
    series, _ = read_series(folder / "metrics.jsonl")
    maps = {kind: rows for kind in SHOWN if (rows := _rows(series, kind))}
    if not maps:
        return None
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    heights = [HEAD + FOOT + max(LINE * len(rows), 1.0) for rows in maps.values()]
    longest = max(len(name) for rows in maps.values() for name in rows)
    left = min(0.3 + LETTER * longest, 4.5)
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, sum(heights)), dpi=110)
        top = sum(heights)
        for (kind, rows), height in zip(maps.items(), heights, strict=True):
            inner = (left, top - height + FOOT, WIDTH - left - BAR, height - HEAD - FOOT)
            _heat_map(figure, inner, rows, SHOWN[kind])
            top -= height
        path = folder / "layers.png"
        figure.savefig(path, pil_kwargs={"compress_level": 3})
    return path


def _rows(series: Series, kind: str) -> dict[str, tuple[Array, Array]]:
    """Steps and values by layer, in the order of the record."""
    pattern = re.compile(rf"layers/(.+)/{kind}")
    named = ((pattern.fullmatch(tag), values) for tag, values in series.items())
    return {match[1]: values for match, values in named if match and len(values[0]) > 1}


def _heat_map(
    figure: Figure, place: tuple[float, ...], rows: dict[str, tuple[Array, Array]], title: str
) -> None:
    from matplotlib.colors import LogNorm

    wide, tall = figure.get_size_inches()
    axes: Axes = figure.add_axes((place[0] / wide, place[1] / tall, place[2] / wide, place[3] / tall))
    steps = np.unique(np.concatenate([own for own, _ in rows.values()]))
    steps = steps[:: math.ceil(len(steps) / MOST_COLUMNS)]
    table = np.array([np.interp(steps, *values) for values in rows.values()])
    positive = table[np.isfinite(table) & (table > 0)]
    low, high = (positive.min(), positive.max()) if positive.size else (1.0, 1.0)
    high = max(high, 1.001 * low)
    edges = np.concatenate([steps[:1], (steps[1:] + steps[:-1]) / 2, steps[-1:]])
    # A gradient that is 0, or none, has no place on a logarithmic scale: the grey behind shows.
    masked = np.ma.masked_invalid(np.where(table > 0, table, np.nan))
    mesh = axes.pcolormesh(
        edges, np.arange(len(rows) + 1), masked, norm=LogNorm(low, high), cmap="viridis"
    )
    axes.set_facecolor(PALE)
    axes.set_ylim(len(rows), 0)
    axes.set_yticks(np.arange(len(rows)) + 0.5, [_short(name) for name in rows])
    axes.tick_params(axis="y", length=0)
    axes.set_title(f"{title}; grey: zero or not finite" if np.ma.is_masked(masked) else title)
    axes.set_xlabel("step")
    ticks(axes.xaxis)
    bar = figure.add_axes(((wide - BAR + 0.15) / wide, place[1] / tall, 0.15 / wide, place[3] / tall))
    colours = figure.colorbar(mesh, cax=bar)
    ticks(colours.ax.yaxis, math.log10(high / low))
    colours.ax.yaxis.set_major_formatter(plain)
    colours.outline.set_visible(False)


def _short(name: str) -> str:
    return name if len(name) <= 60 else "…" + name[-59:]

"""A comparison as lines over a number that was swept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from trainer.pictures.comparison_axes import (
    EDGE,
    FOOT,
    GREY,
    HEAD,
    LETTER,
    Scale,
    Swept,
    ends,
    head,
    label,
)
from trainer.pictures.drawing import BLUE, GREEN, INK, ORANGE, RED, TERMS, WIDTH, ticks
from trainer.sweeps.comparison import Comparison, Variant, numbers_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TALL, LEFT, GUTTER, LEGEND = 2.5, 0.65, 0.6, 0.3  # inches
MOST_LINES, MOST_PANELS, LEAST_POINTS = 4, 4, 3
COLOURS = (BLUE, ORANGE, GREEN, TERMS[1], INK, TERMS[0])
MARKERS = "os^Dv*"


def swept_number(variants: Sequence[Variant]) -> str | None:
    """The key that was swept over the most numbers, three at least; None without one."""
    counts = {}
    for key in dict.fromkeys(key for variant in variants for key in variant.settings):
        values = numbers_of((variant.settings for variant in variants), key)
        if len(values) >= LEAST_POINTS:
            counts[key] = len(values)
    return max(counts, key=lambda key: counts[key], default=None)


def panels_and_lines(variants: Sequence[Variant], axis: str) -> tuple[str | None, list[str]]:
    """The key with a panel per value, None where few lines need none, and the keys of the lines."""
    keys = dict.fromkeys(key for variant in variants for key in variant.settings if key != axis)
    lines = {label(variant, keys) for variant in variants}
    if len(lines) <= MOST_LINES or len(keys) < 2:
        return None, list(keys)
    counts = {key: len({variant.settings.get(key) for variant in variants}) for key in keys}
    fitting = [key for key in keys if counts[key] <= MOST_PANELS] or list(keys)
    panel = max(reversed(fitting), key=lambda key: counts[key])
    return panel, [key for key in keys if key != panel]


def draw_lines(figure: Figure, comparison: Comparison, axis: str) -> None:
    """The objective over the swept number, and below it the share of spikes; a column per panel."""
    variants = comparison.variants
    swept = Swept(axis, variants)
    key, line_keys = panels_and_lines(variants, axis)
    panels = list(dict.fromkeys(variant.settings.get(key or "", "") for variant in variants))
    names = list(dict.fromkeys(label(variant, line_keys) for variant in variants))
    rows = 1 + any(variant.spiking for variant in variants)
    abreast = int(WIDTH / (LETTER * max(map(len, names)) + 0.6))
    legend = LEGEND * (-(-len(names) // abreast) if names != [""] else 0)
    height = HEAD + legend + rows * TALL + (rows - 1) * 0.25 + FOOT
    figure.set_size_inches(WIDTH, height)
    head(
        figure,
        f"{comparison.tag} over {axis}, {max(v.runs for v in variants)} seeds",
        "mean ± standard deviation",
    )
    lost = any(variant.diverged for variant in variants)
    margin = 0.055 * (len(names) + 1) if lost else 0.0
    low = comparison.higher_is_better
    scale = Scale((end for v in variants for end in ends(v)), margin, low, may_be_log=not low)
    most = max((100 * (variant.spiking or 0.0) for variant in variants), default=0.0)
    width = (WIDTH - LEFT - EDGE - GUTTER * (len(panels) - 1)) / len(panels)
    for column, panel in enumerate(panels):
        shown = [v for v in swept.ordered if v.settings.get(key or "", "") == panel]
        lines = [[v for v in shown if label(v, line_keys) == name] for name in names]
        x = (LEFT + column * (width + GUTTER)) / WIDTH
        for row in range(rows):
            y = FOOT + (rows - 1 - row) * (TALL + 0.25)
            axes = figure.add_axes((x, y / height, width / WIDTH, TALL / height))
            if row == 0:
                axes.set_title(f"{key}={panel}" if key else "")
                _objective_lines(axes, dict(zip(names, lines, strict=True)), swept, scale)
            else:
                _spike_lines(axes, lines, swept, most)
            swept.finish(axes, labelled=row == rows - 1)
            if lost and row == 0 and panel == panels[-1]:
                place: dict[str, Any] = {"x": 1.01, "y": scale.place(0.5), "transform": axes.transAxes}
                axes.text(**place, s="diverged", color=RED, size=7.5, va="center", rotation=90)
            if column == 0:
                axes.set_ylabel("losses that spike (%)" if row else comparison.tag)
    if names != [""]:
        handles = figure.axes[0].get_legend_handles_labels()
        corner = (LEFT - 0.1) / WIDTH, 1 - 0.45 / height
        figure.legend(
            *handles, loc="upper left", bbox_to_anchor=corner, ncols=abreast, borderaxespad=0.0
        )


def _objective_lines(axes: Axes, lines: dict[str, list[Variant]], swept: Swept, scale: Scale) -> None:
    where = axes.get_xaxis_transform()
    for index, (name, variants) in enumerate(lines.items()):
        xs = [swept.place(variant, index, len(lines)) for variant in variants]
        means = [math.nan if variant.mean is None else variant.mean for variant in variants]
        spread = [variant.deviation or 0.0 for variant in variants]
        axes.errorbar(xs, means, spread, label=name, elinewidth=1.2, **_look(index))
        level = scale.place((index + 1) / (len(lines) + 1))
        for x, variant in zip(xs, variants, strict=True):
            if variant.diverged:
                axes.plot([x], [level], "x", color=_look(index)["color"], ms=6, mew=1.8, transform=where)
                told = f"  {len(variant.diverged)}/{variant.runs}"
                axes.text(x, level, told, size=7, va="center", color=GREY, transform=where)
    axes.set_yscale(scale.kind)
    axes.set_ylim(*scale.limits)
    scale.tick(axes.yaxis)
    if scale.margin:
        axes.axhspan(*scale.lost, color=RED, alpha=0.06, lw=0)


def _spike_lines(axes: Axes, lines: list[list[Variant]], swept: Swept, most: float) -> None:
    for index, variants in enumerate(lines):
        xs = [swept.place(variant, index, len(lines)) for variant in variants]
        shares = [math.nan if v.spiking is None else 100 * v.spiking for v in variants]
        axes.plot(xs, shares, **_look(index))
    axes.set_ylim(-0.05 * most, 1.08 * most)
    ticks(axes.yaxis)


def _look(index: int) -> dict[str, Any]:
    """Colour and mark of a line."""
    mark = {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}
    return mark | {"linewidth": 1.4, "markersize": 5, "markeredgewidth": 0}

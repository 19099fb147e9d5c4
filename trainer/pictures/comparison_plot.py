"""Pictures of a comparison: variants below each other, or as lines over a number that was swept."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.pictures.comparison_axes import EDGE, FAINT, FOOT, GREY, HEAD, LETTER, Scale, ends, head
from trainer.pictures.comparison_lines import draw_lines, swept_number
from trainer.pictures.drawing import BLUE, GREEN, INK, RED, STYLE, WIDTH
from trainer.sweeps.comparison import HELPS, HURTS, OFTENER, RARER, Comparison
from trainer.wording import MISSING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINE, VERDICTS, GAP = 0.34, 1.25, 0.3  # inches
VERDICT_COLOURS = {HELPS: GREEN, RARER: GREEN, HURTS: RED, OFTENER: RED}


def draw_comparison(comparison: Comparison, path: Path) -> Path:
    """Draws the variants: objective, largest gradient norm and share of spikes, each seed and the mean.

    Where a number was swept over three values or more, it is the x axis, and the combinations of what
    else was swept are lines; of more than four, one of the keys becomes a row of panels.

    Args:
        comparison: what to draw.
        path: of the PNG.

    Returns:
        The path.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(dpi=110)
        axis = swept_number(comparison.variants)
        if axis is None:
            _draw_rows(figure, comparison)
        else:
            draw_lines(figure, comparison, axis)
        figure.savefig(path, pil_kwargs={"compress_level": 3})
    return path


def _draw_rows(figure: Figure, comparison: Comparison) -> None:
    """A row per variant, and a panel each for objective, norm and spikes."""
    variants = comparison.variants
    keys = list(dict.fromkeys(key for variant in variants for key in variant.settings))
    names = ["  ".join(variant.settings.get(key, MISSING) for key in keys) for variant in variants]
    left = min(max(1.0, LETTER * max(map(len, names)) + 0.3), 5.0)
    tall = LINE * len(variants) + 0.1
    height = HEAD + tall + FOOT
    figure.set_size_inches(WIDTH, height)
    title = f"{comparison.tag} by {', '.join(keys)}" if keys else comparison.tag
    title += f", {max(variant.runs for variant in variants)} seeds"
    head(
        figure, title, "a dot per seed; diamond and bar: mean ± standard deviation, of norms the median"
    )
    room = WIDTH - left - VERDICTS - 2 * GAP - EDGE
    widths = [0.46 * room, 0.27 * room, 0.27 * room]
    starts = [left, left + widths[0] + VERDICTS + GAP, WIDTH - EDGE - widths[2]]
    objective, norms, spikes = (
        figure.add_axes((x / WIDTH, FOOT / height, wide / WIDTH, tall / height))
        for x, wide in zip(starts, widths, strict=True)
    )
    _objective_rows(objective, comparison)
    objective.set_yticks(range(len(variants)), names)
    for index, variant in enumerate(variants):
        difference = comparison.difference(variant)
        verdict = difference.verdict if difference is not None else "reference" * (len(variants) > 1)
        colour = VERDICT_COLOURS.get(verdict, GREY)
        place = objective.get_yaxis_transform()
        objective.text(1.03, index, verdict, color=colour, va="center", transform=place)
    found = [list(variant.norms.values()) for variant in variants]
    centres = [variant.largest_norm for variant in variants]
    _rows(norms, found, centres, repeat(None), Scale(norm for row in found for norm in row))
    shares = [[100 * share for share in variant.spikes.values()] for variant in variants]
    most = max((share for row in shares for share in row), default=0.0)
    means = [None if variant.spiking is None else 100 * variant.spiking for variant in variants]
    _rows(spikes, shares, means, repeat(None), Scale([0.0, most or 1.0]))
    for axes, words in ((norms, "Largest gradient norm"), (spikes, "Losses that spike (%)")):
        axes.set_yticks(range(len(variants)), [""] * len(variants))
        axes.set_title(words)
    better = "more is better" if comparison.higher_is_better else "less is better"
    objective.set_title(f"{comparison.tag}, {better}")


def _objective_rows(axes: Axes, comparison: Comparison) -> None:
    variants, low = comparison.variants, comparison.higher_is_better
    lost = any(variant.diverged for variant in variants)
    values = [list(variant.values.values()) for variant in variants]
    bars = [end for variant in variants for end in ends(variant)]
    dots = (value for row in values for value in row)
    scale = Scale([*bars, *dots], 0.17 if lost else 0.0, low, may_be_log=not low)
    _rows(axes, values, [v.mean for v in variants], [v.deviation for v in variants], scale)
    if variants[0].mean is not None:
        axes.axvline(variants[0].mean, color=INK, ls=":", lw=1.0, zorder=0)
    if not lost:
        return
    axes.axvspan(*scale.lost, color=RED, alpha=0.06, lw=0)
    where = axes.get_yaxis_transform()
    for index, variant in enumerate(variants):
        if variant.diverged:
            axes.plot([scale.place(0.2)], [index], "x", color=RED, ms=6, mew=1.8, transform=where)
            told = f"{len(variant.diverged)} of {variant.runs}"
            place, side = scale.place(0.62), "center"
            axes.text(place, index, told, color=RED, va="center", ha=side, size=7.5, transform=where)
    look: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points"}
    look |= {"color": RED, "size": 7.5, "ha": "center", "va": "top"}
    axes.annotate("diverged", (scale.place(0.5), 0.0), xytext=(0, -5), **look)


def _rows(
    axes: Axes,
    values: list[list[float]],
    centres: Iterable[float | None],
    bars: Iterable[float | None],
    scale: Scale,
) -> None:
    """In each row a dot per value, a diamond in the centre, and a bar to either side of it."""
    for index, (row, centre, bar) in enumerate(zip(values, centres, bars, strict=False)):
        axes.plot(row, [index] * len(row), "o", color=BLUE, alpha=0.4, ms=5, mew=0, zorder=2)
        if centre is not None and bar is not None:
            axes.hlines(index, centre - bar, centre + bar, color=BLUE, lw=2.0, zorder=3)
        if centre is not None:
            axes.plot([centre], [index], "D", color=BLUE, ms=5.5, mec="white", mew=0.8, zorder=4)
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.set_xscale(scale.kind)
    axes.set_xlim(*scale.limits)
    if any(values):
        scale.tick(axes.xaxis)
    else:
        axes.set_xticks([])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", color=FAINT, lw=0.6)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)

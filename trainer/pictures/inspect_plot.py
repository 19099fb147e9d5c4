"""Pictures of a run that has not begun: its learning rate, and how large its activations are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from trainer.diagnostics.architecture import Layer
from trainer.pictures.drawing import BLUE, GREEN, INK, STYLE, WIDTH, finish, line, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROW, LETTER = 0.19, 0.068  # inches


def draw_schedule(rates: Sequence[float], name: str, path: Path) -> Path:
    """Draws the learning rate over the steps of a run.

    Args:
        rates: of each step.
        name: of the schedule.
        path: of the PNG.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH / 2, 2.8), dpi=110, layout="constrained")
        axes = figure.subplots()
        line(
            axes, {"lr": (np.arange(1.0, len(rates) + 1), np.array(rates))}, "lr", BLUE, name, marker=""
        )
        finish(axes, f"Learning rate, scheduler={name}, {len(rates)} steps")
        axes.set_ylim(bottom=0.0)
        axes.set_xlabel("step")
        figure.savefig(path, pil_kwargs={"compress_level": 3})
    return path


def draw_activations(layers: Sequence[Layer], bare: Sequence[Layer], path: Path) -> Path:
    """Draws quantiles of each layer's outputs: of the model as it is and, where they differ, of the same
    weights with the normalization layers taken out.

    Args:
        layers: of the model (`trainer.diagnostics.layers`).
        bare: of `trainer.diagnostics.without_normalization` of it.
        path: of the PNG.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    taken_out = {a.name for a in bare if a.kind == "Identity"} - {
        a.name for a in layers if a.kind == "Identity"
    }
    shown = [layer for layer in layers if layer.quantiles and layer.name not in taken_out]
    panels = {"as configured": shown}
    if taken_out:
        names = {layer.name for layer in shown}
        panels["without normalization"] = [layer for layer in bare if layer.name in names]
    longest = max((len(f"{layer.name} {layer.kind}") for layer in shown), default=0)
    left = min(0.3 + LETTER * longest, 5.0)
    with rc_context(STYLE):
        height = max(1.0, ROW * len(shown)) + 1.0
        figure = Figure(figsize=(WIDTH, height), dpi=110)
        room = (WIDTH - left - 0.25 - 0.3 * (len(panels) - 1)) / len(panels)
        for index, (title, rows) in enumerate(panels.items()):
            start = left + index * (room + 0.3)
            place = (start / WIDTH, 0.55 / height, room / WIDTH, (height - 1.0) / height)
            _quantiles(figure.add_axes(place), rows, title, _reach(panels), named=index == 0)
        figure.savefig(path, pil_kwargs={"compress_level": 3})
    return path


def _reach(panels: dict[str, list[Layer]]) -> tuple[float, float]:
    """The largest quantile that is drawn, and below what the axis is linear."""
    ends = [abs(q) for rows in panels.values() for layer in rows for q in layer.quantiles]
    finite = [end for end in ends if np.isfinite(end)]
    largest = max(finite, default=1.0) or 1.0
    spans = min((max(map(abs, a.quantiles)) for r in panels.values() for a in r), default=1.0)
    return largest, min(max(spans, 1e-6 * largest), 1.0)


def _quantiles(
    axes: Axes, rows: Sequence[Layer], title: str, reach: tuple[float, float], named: bool
) -> None:
    places = np.arange(len(rows))
    low, lower, middle, upper, high = np.array([layer.quantiles for layer in rows]).reshape(-1, 5).T
    axes.axvline(0.0, color=INK, lw=0.6, zorder=0)
    axes.hlines(places, low, high, color=BLUE, lw=1.2)
    axes.hlines(places, lower, upper, color=BLUE, lw=5.0)
    axes.plot(middle, places, "o", color=GREEN, ms=3.5, mec="white", mew=0.5)
    largest, linear = reach
    if largest > 20 * linear:
        axes.set_xscale("symlog", linthresh=linear)
        axes.xaxis.set_major_formatter(plain)
    axes.set_xlim(-1.1 * largest, 1.1 * largest)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(
        places, [f"{layer.name} {layer.kind}" for layer in rows] if named else [""] * len(rows)
    )
    axes.tick_params(axis="y", length=0)
    axes.set_title(f"Outputs of each layer, {title}")
    axes.set_xlabel("thin: 5–95 %, thick: 25–75 %, dot: median")

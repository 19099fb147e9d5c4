"""The curves of several runs over each other, as one PNG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

import numpy as np

from trainer.pictures.drawing import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    RED,
    STYLE,
    TERMS,
    WIDTH,
    finish,
    line,
    ticks,
)
from trainer.series import Array, Series, read_series
from trainer.sweeps.comparison import Entry

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = (BLUE, ORANGE, GREEN, RED, TERMS[1], TERMS[0], INK, TERMS[2])
PALE, LEGEND_LINE, COLUMNS = "#CFCFCF", 0.22, 3


def draw_runs(runs: Sequence[Entry], path: Path) -> Path | None:
    """Draws loss, objective, gradient norm and learning rate of the runs, each over the others.

    Runs that differ in nothing but their seed are one line, their mean. Of more than eight settings the
    eight best by the objective are coloured, and the others are pale.

    Args:
        runs: folders with a metrics.jsonl, and what was typed for each.
        path: of the PNG.

    Returns:
        The path; None where no run has two logged steps.
    """
    drawn = [(run, *read_series(run.folder / "metrics.jsonl")) for run in runs]
    series = [(run, own) for run, own, logged in drawn if logged > 1]
    tags = _tags(series)
    if not tags:
        return None
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    colours = _colours([run for run, _ in series])
    with rc_context(STYLE):
        height = 2.5 * -(-len(tags) // 2) + LEGEND_LINE * (len(colours) // COLUMNS + 1)
        figure = Figure(figsize=(WIDTH, height), dpi=110, layout="constrained")
        panels = figure.subplots(-(-len(tags) // 2), 2 if len(tags) > 1 else 1, squeeze=False).ravel()
        for axes, (tag, title) in zip(panels, tags.items(), strict=False):
            _draw(axes, tag, title, series, colours)
        for axes in panels[len(tags) :]:
            axes.set_visible(False)
        handles = [Line2D([], [], color=colour, lw=2.0) for colour in colours.values()]
        labels = list(colours)
        if len(set(_names([run for run, _ in series]))) > len(colours):
            handles, labels = [*handles, Line2D([], [], color=PALE, lw=2.0)], [*labels, "others"]
        figure.legend(handles, labels, loc="outside lower left", ncols=COLUMNS)
        figure.savefig(path, pil_kwargs={"compress_level": 3})
    return path


def _draw(
    axes: Axes, tag: str, title: str, series: list[tuple[Entry, Series]], colours: dict[str, str]
) -> None:
    """One tag: of every setting the mean over its seeds."""
    alike: dict[str, list[tuple[Array, Array]]] = {}
    for name, (_, own) in zip(_names([run for run, _ in series]), series, strict=True):
        if tag in own:
            alike.setdefault(name, []).append(own[tag])
    # The coloured ones last, so that none is hidden behind a pale one.
    for name in sorted(alike, key=lambda name: name in colours):
        steps = np.unique(np.concatenate([own for own, _ in alike[name]]))
        rows = np.array([np.interp(steps, *one, left=np.nan, right=np.nan) for one in alike[name]])
        rows = np.ma.masked_invalid(rows)
        colour = colours.get(name, PALE)
        line(axes, {tag: (steps, rows.mean(0).filled(np.nan))}, tag, colour, name, marker="")
    finish(axes, title, log_from=math.inf if tag == "lr" else 20.0)
    axes.set_xlabel("step")
    ticks(axes.xaxis)


def _tags(series: list[tuple[Entry, Series]]) -> dict[str, str]:
    objectives = [(run.summary["objective"] or {}).get("tag") for run, _ in series]
    aim = next(filter(None, objectives), "val/loss")
    titles = {"train/loss": "Training loss", aim: aim, "val/loss": "val/loss"}
    titles |= {"grad/norm": "Gradient norm before clipping", "lr": "Learning rate"}
    found = {tag: title for tag, title in titles.items() if any(tag in own for _, own in series)}
    if len(found) > 4:
        found.pop("val/loss")
    return found


def _names(runs: Sequence[Entry]) -> list[str]:
    """What each run differs in from the others, but for its seed."""
    typed = [[item for item in run.overrides if not item.startswith("seed=")] for run in runs]
    common = set.intersection(*map(set, typed)) if typed else set()
    return ["  ".join(item for item in own if item not in common) or "as configured" for own in typed]


def _colours(runs: Sequence[Entry]) -> dict[str, str]:
    """The best settings by name, each with its colour, in the order of the runs."""
    badness: dict[str, list[float]] = {}
    for name, run in zip(_names(runs), runs, strict=True):
        badness.setdefault(name, []).append(run.badness)
    best = sorted(badness, key=lambda name: mean(badness[name]))[: len(COLOURS)]
    return dict(zip([name for name in badness if name in best], COLOURS, strict=False))

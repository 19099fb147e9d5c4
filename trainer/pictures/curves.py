"""The curves of a run as one PNG, drawn from its record."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    thinned,
    ticks,
)
from trainer.pictures.strip import SAMPLES, draw_samples, read_samples
from trainer.series import Series, read_series

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Panel = Callable[["Axes", Series], None]

MOST_METRICS = 3
HEAD, ROW = 0.5, 2.8  # inches, these and the next
LEFT, RIGHT, GUTTER = 0.6, 0.25, 0.65


def draw_curves(folder: Path) -> Path | None:
    """Draws ``folder/curves.png`` from metrics.jsonl: 0.4 s, twice that with matplotlib's import.

    Beside it, summary.json adds the title line and the suggested threshold, samples.npz (``input``,
    ``prediction``, ``target``, each (N, C, H, W) in [0, 1]) a strip of images.

    Returns:
        The path of the picture, or None when there are fewer than two logged steps.
    """
    series, logged = read_series(folder / "metrics.jsonl")
    file = folder / "summary.json"
    summary = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    rows = [row for row in _panels(series, summary) if row]
    if logged < 2 or not rows:
        return None
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    samples = read_samples(folder / "samples.npz")
    with rc_context(STYLE):
        height = HEAD + ROW * len(rows) + (SAMPLES if samples else 0.0)
        figure = Figure(figsize=(WIDTH, height), dpi=110)
        _head(figure, summary)
        for index, row in enumerate(rows):
            _draw_row(figure, row, series, bottom=height - HEAD - ROW * (index + 1))
        if samples:
            draw_samples(figure, *samples)
        figure.savefig(folder / "curves.png", pil_kwargs={"compress_level": 3})
    return folder / "curves.png"


def _panels(series: Series, summary: Mapping[str, Any]) -> tuple[list[Panel], list[Panel]]:
    """What can be drawn from these tags: the wide panels above, the narrow ones below."""
    above: list[Panel] = []
    if "train/loss" in series or "val/loss" in series:
        above.append(_loss)
    if "grad/norm" in series:
        suggested = (summary.get("clip") or {}).get("suggested_max_norm")
        above.append(partial(_norms, suggested=suggested))
    objective, best = summary.get("objective") or {}, summary.get("metrics") or {}
    metrics = [t for t in series if t.startswith("val/") and not t.startswith("val/loss")]
    metrics.sort(key=lambda tag: tag != objective.get("tag"))
    below: list[Panel] = []
    for tag in metrics[:MOST_METRICS]:
        value = (best.get(tag) or {}).get("best")
        title = f"{tag} (dB)" if "psnr" in tag.lower() else tag
        title += f", best {value:.4g}" if value is not None else ""
        below.append(partial(_curve, tag=tag, title=title, colour=ORANGE))
    if "lr" in series:
        below.append(partial(_curve, tag="lr", title="Learning rate", colour=BLUE))
    return above, [*below, _histogram] if "train/loss" in series else below


def _draw_row(figure: Figure, panels: list[Panel], series: Series, bottom: float) -> None:
    height, last = figure.get_figheight(), max(steps[-1] for steps, _ in series.values())
    width = (WIDTH - LEFT - RIGHT - GUTTER * (len(panels) - 1)) / len(panels)
    for index, panel in enumerate(panels):
        left = LEFT + index * (width + GUTTER)
        low, tall = (bottom + 0.5) / height, (ROW - 1.0) / height
        axes = figure.add_axes((left / WIDTH, low, width / WIDTH, tall))
        axes.set_xlim(-0.01 * last, 1.01 * last)
        axes.set_xlabel("step")
        ticks(axes.xaxis)
        panel(axes, series)


def _head(figure: Figure, summary: Mapping[str, Any]) -> None:
    aim, clip = summary.get("objective") or {}, summary.get("clip") or {}
    share, value, status = clip.get("fraction"), aim.get("value"), str(summary.get("status", ""))
    facts = [] if share is None else [f"{clip['mode']} bound on {100 * share:.3g} % of steps"]
    facts += [] if value is None else [f"{aim['tag']} {value:.4g}"]
    colour = INK if status == "completed" else RED
    y = 1 - 0.3 / figure.get_figheight()
    figure.text(LEFT / WIDTH, y, status.capitalize(), color=colour, size=12, weight="bold")
    figure.text(1 - RIGHT / WIDTH, y, "     ".join(facts), size=9.5, ha="right")


def _loss(axes: Axes, series: Series) -> None:
    line(axes, series, "train/loss", BLUE, "train")
    line(axes, series, "val/loss", ORANGE, "validation", linewidth=1.8)
    hides = partial(np.array_equal, series.get("train/loss", []), equal_nan=True)  # the loss's line
    terms = [tag for tag in series if tag.startswith("train/loss/") and not hides(series[tag])]
    for index, tag in enumerate(terms):
        line(axes, series, tag, TERMS[index % 4], tag.split("/", 2)[2], linewidth=0.7)
    steps, skipped = series.get("guard/skipped", (np.empty(0), np.empty(0)))
    refused = steps[np.diff(skipped, prepend=0.0) > 0]
    if refused.size:
        foot, where = np.full(refused.shape, 0.025), axes.get_xaxis_transform()
        axes.plot(refused, foot, "|", color=RED, transform=where, label="refused update")
    finish(axes, "Loss", log_from=20.0, legend=True)


def _norms(axes: Axes, series: Series, suggested: float | None) -> None:
    line(axes, series, "grad/norm", BLUE, "before clipping")
    if "grad/norm_max" in series:
        steps, largest = thinned(*series["grad/norm_max"])
        mean = np.interp(steps, *series["grad/norm"])
        axes.fill_between(steps, mean, largest, color=BLUE, alpha=0.2, lw=0, label="largest")
    line(axes, series, "grad/norm_clipped", GREEN, "after", linewidth=0.6)
    line(axes, series, "grad/threshold", RED, "threshold", linestyle="--", marker="")
    if suggested is not None:
        axes.axhline(suggested, color=INK, ls=":", lw=1.0, label=f"p90 {suggested:.2g}")
    finish(axes, "Gradient norm", log_from=1.0, legend=True)


def _curve(axes: Axes, series: Series, tag: str, title: str, colour: str) -> None:
    line(axes, series, tag, colour, tag, linewidth=1.4)
    finish(axes, title)


def _histogram(axes: Axes, series: Series) -> None:
    losses = np.sort(series["train/loss"][1])[: np.isfinite(series["train/loss"][1]).sum()]
    low = float(losses[0])
    high = max(float(losses[-1]), low + 1e-6 * abs(low) + 1e-12)  # equal losses too need a width
    decades = math.log10(high / low) if 0 < 20 * low < high else 0.0
    counts, edges = np.histogram(losses, (np.geomspace if decades else np.linspace)(low, high, 41))
    axes.set(xscale="log" if decades else "linear", xlim=(edges[0], edges[-1]))
    axes.stairs(counts, edges, fill=True, color=BLUE, alpha=0.75)
    ticks(axes.xaxis, decades)
    axes.set_xlabel("training loss")
    finish(axes, "Logged steps")

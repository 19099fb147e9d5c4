"""What clipping did in a run, as one PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from trainer.pictures.drawing import BLUE, GREEN, RED, STYLE, WIDTH, finish, line, thinned, ticks
from trainer.series import Series, read_series


def draw_clip(folder: Path) -> Path | None:
    """Draws ``folder/clip.png`` from metrics.jsonl: the gradient norm before and after clipping with the
    threshold, how much of the gradient was left, and how many steps were clipped.

    Returns:
        The path; None where fewer than two logged steps have a norm.
    """
    series, _ = read_series(folder / "metrics.jsonl")
    if len(series.get("grad/norm", ((),))[0]) < 2 or "grad/norm_clipped" not in series:
        return None
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 5.6), dpi=110, layout="constrained")
        panels = figure.subplot_mosaic([["norm", "norm"], ["left", "share"]])
        axes = panels["norm"]
        line(axes, series, "grad/norm", BLUE, "before clipping")
        if "grad/norm_max" in series:
            steps, largest = thinned(*series["grad/norm_max"])
            mean = np.interp(steps, *series["grad/norm"])
            axes.fill_between(steps, mean, largest, color=BLUE, alpha=0.2, lw=0, label="largest")
        line(axes, series, "grad/norm_clipped", GREEN, "after")
        line(axes, series, "grad/threshold", RED, "threshold", linestyle="--", marker="")
        finish(axes, "Gradient norm, mean of each log interval", log_from=20.0, legend=True)
        line(panels["left"], _kept(series), "kept", GREEN, "after / before")
        finish(panels["left"], "What clipping left of the norm (%)")
        shares = {"share": _percent(series, "grad/clipped")} if "grad/clipped" in series else {}
        line(panels["share"], shares, "share", BLUE, "clipped")
        finish(panels["share"], "Steps clipped (%)")
        for name, axes in panels.items():
            axes.set_xlabel("step")
            ticks(axes.xaxis)
            if name != "norm":
                axes.set_ylim(-3, 103)
        path = folder / "clip.png"
        figure.savefig(path, pil_kwargs={"compress_level": 3})
    return path


def _percent(series: Series, tag: str) -> tuple[np.ndarray, np.ndarray]:
    steps, values = series[tag]
    return steps, 100 * values


def _kept(series: Series) -> Series:
    steps, before = series["grad/norm"]
    after = np.interp(steps, *series["grad/norm_clipped"])
    with np.errstate(divide="ignore", invalid="ignore"):
        return {"kept": (steps, np.where(before > 0, 100 * after / before, 100.0))}

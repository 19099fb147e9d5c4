"""Pictures drawn from a run's record: the curves as one PNG, the samples as one strip."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Array = npt.NDArray[Any]
Series = dict[str, tuple[Array, Array]]
Panel = Callable[["Axes", Series], None]

MOST_POINTS, MOST_METRICS, MOST_IMAGES = 2000, 3, 10
TILE_PIXELS, GAP_PIXELS = 64, 2
WIDTH, HEAD, ROW, SAMPLES = 12.0, 0.5, 2.8, 3.3  # inches, these and the next
LEFT, RIGHT, GUTTER, NAMES = 0.6, 0.25, 0.65, 1.25
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


def draw_curves(folder: Path) -> Path | None:
    """Draws ``folder/curves.png`` from metrics.jsonl: 0.4 s, twice that with matplotlib's import.

    Beside it, summary.json adds the title line and the suggested threshold, samples.npz (``input``,
    ``prediction``, ``target``, each (N, C, H, W) in [0, 1]) a strip of images.

    Returns:
        The path of the picture, or None when there are fewer than two logged steps.
    """
    series, logged = _read(folder / "metrics.jsonl")
    file = folder / "summary.json"
    summary = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    rows = [row for row in _panels(series, summary) if row]
    if logged < 2 or not rows:
        return None
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    samples = _samples(folder / "samples.npz")
    with rc_context(STYLE):
        height = HEAD + ROW * len(rows) + (SAMPLES if samples else 0.0)
        figure = Figure(figsize=(WIDTH, height), dpi=110)
        _head(figure, summary)
        for index, row in enumerate(rows):
            _draw_row(figure, row, series, bottom=height - HEAD - ROW * (index + 1))
        if samples:
            _draw_samples(figure, *samples)
        figure.savefig(folder / "curves.png", pil_kwargs={"compress_level": 3})
    return folder / "curves.png"


def strip(inputs: npt.ArrayLike, predictions: npt.ArrayLike, targets: npt.ArrayLike) -> Array:
    """Three rows of images: inputs, predictions, targets; the first ten at most.

    Args:
        inputs: (N, C, H, W) in [0, 1]; three channels are colour, otherwise the first is grey.
        predictions: the same; what is not finite is drawn black.
        targets: the same; sets the size of all tiles.

    Returns:
        uint8 of shape (height, width, 3): tiles enlarged by a whole factor, thin white gaps.

    Raises:
        ValueError: when there is no image.
    """
    rows = [np.asarray(images)[:MOST_IMAGES] for images in (inputs, predictions, targets)]
    count, _, height, width = rows[2].shape
    if count == 0:
        raise ValueError("a strip needs at least one image, got none")
    scale = max(1, round(TILE_PIXELS / max(height, width)))
    tiles = [[_tile(image, height * scale, width * scale) for image in images] for images in rows]
    picture = np.concatenate([np.concatenate(row, axis=1) for row in tiles])
    return picture[:-GAP_PIXELS, :-GAP_PIXELS]


def _tile(image: Array, height: int, width: int) -> Array:
    channels = image[:3] if image.shape[0] >= 3 else image[:1]
    pixels = np.clip(np.nan_to_num(channels, posinf=0.0, neginf=0.0), 0.0, 1.0)
    rows = np.arange(height) * image.shape[1] // height
    columns = np.arange(width) * image.shape[2] // width
    nearest = np.rint(255 * pixels[:, rows][:, :, columns]).astype(np.uint8)
    colours = np.broadcast_to(nearest.transpose(1, 2, 0), (height, width, 3))
    return np.pad(colours, ((0, GAP_PIXELS), (0, GAP_PIXELS), (0, 0)), constant_values=255)


def _read(path: Path) -> tuple[Series, int]:
    """Every tag's steps and values (null as NaN) sorted by step, and how many steps there are."""
    points: dict[str, dict[int, float]] = {}
    steps = set()
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            record = json.loads(line)
        except ValueError:  # a killed run may leave half a line
            continue
        step = record.pop("step")
        steps.add(step)
        for tag, value in record.items():
            # A step walked twice, after a rewind or a resume, counts as it went the second time.
            points.setdefault(tag, {})[step] = math.nan if value is None else value
    arrays = {tag: np.array(sorted(values.items()), float).T for tag, values in points.items()}
    return {t: (x, y) for t, (x, y) in arrays.items() if np.isfinite(y).any()}, len(steps)


def _samples(path: Path) -> list[Array]:
    if not path.exists():
        return []
    with np.load(path) as file:
        samples = [file[key] for key in ("input", "prediction", "target")]
    return samples if all(images.ndim == 4 and len(images) for images in samples) else []


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
    _line(axes, series, "train/loss", BLUE, "train")
    _line(axes, series, "val/loss", ORANGE, "validation", linewidth=1.8)
    hides = partial(np.array_equal, series.get("train/loss", []), equal_nan=True)  # the loss's line
    terms = [tag for tag in series if tag.startswith("train/loss/") and not hides(series[tag])]
    for index, tag in enumerate(terms):
        _line(axes, series, tag, TERMS[index % 4], tag.split("/", 2)[2], linewidth=0.7)
    steps, skipped = series.get("guard/skipped", (np.empty(0), np.empty(0)))
    refused = steps[np.diff(skipped, prepend=0.0) > 0]
    if refused.size:
        foot, where = np.full(refused.shape, 0.025), axes.get_xaxis_transform()
        axes.plot(refused, foot, "|", color=RED, transform=where, label="refused update")
    _finish(axes, "Loss", log_from=20.0, legend=True)


def _norms(axes: Axes, series: Series, suggested: float | None) -> None:
    _line(axes, series, "grad/norm", BLUE, "before clipping")
    if "grad/norm_max" in series:
        steps, largest = _thinned(*series["grad/norm_max"])
        mean = np.interp(steps, *series["grad/norm"])
        axes.fill_between(steps, mean, largest, color=BLUE, alpha=0.2, lw=0, label="largest")
    _line(axes, series, "grad/norm_clipped", GREEN, "after", linewidth=0.6)
    _line(axes, series, "grad/threshold", RED, "threshold", linestyle="--", marker="")
    if suggested is not None:
        axes.axhline(suggested, color=INK, ls=":", lw=1.0, label=f"p90 {suggested:.2g}")
    _finish(axes, "Gradient norm", log_from=1.0, legend=True)


def _curve(axes: Axes, series: Series, tag: str, title: str, colour: str) -> None:
    _line(axes, series, tag, colour, tag, linewidth=1.4)
    _finish(axes, title)


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
    _finish(axes, "Logged steps")


def _draw_samples(figure: Figure, inputs: Array, predictions: Array, targets: Array) -> None:
    picture = strip(inputs, predictions, targets)
    height, room = figure.get_figheight(), SAMPLES - 0.3
    scale = min((WIDTH - NAMES - RIGHT) / picture.shape[1], room / picture.shape[0])
    wide, tall = picture.shape[1] * scale, picture.shape[0] * scale
    bottom = 0.2 + room - tall
    axes = figure.add_axes((NAMES / WIDTH, bottom / height, wide / WIDTH, tall / height))
    axes.imshow(picture, aspect="auto")
    axes.set_axis_off()
    alike = inputs.shape == targets.shape
    names = ("noisy input", "denoised", "clean") if alike else ("input", "prediction", "target")
    for row, images in enumerate((inputs, predictions, targets)):
        x, y = (NAMES - 0.12) / WIDTH, (bottom + tall * (1 - (row + 0.5) / 3)) / height
        label = f"{names[row]}\n{_psnr(images, targets)}".strip()
        figure.text(x, y, label, ha="right", va="center", linespacing=1.5)


def _psnr(images: Array, targets: Array) -> str:
    """Mean over the images shown of 10 log10(1 / mean squared error), where that can be said."""
    if images is targets or images.shape != targets.shape:
        return ""
    errors = (images[:MOST_IMAGES].astype(float) - targets[:MOST_IMAGES]) ** 2
    mean = float(-10 * np.log10(np.maximum(errors.mean(axis=(1, 2, 3)), 1e-10)).mean())
    return f"PSNR {mean:.1f} dB" if math.isfinite(mean) else ""


def _line(axes: Axes, series: Series, tag: str, colour: str, label: str, **style: Any) -> None:
    """One tag against the step, where it was recorded; fewer points make a heavier line."""
    if tag in series:
        steps, values = _thinned(*series[tag])
        look: dict[str, Any] = {"linewidth": 1.2 if len(steps) <= 300 else 0.7}
        look |= {"marker": "." if len(steps) <= 50 else "", "markersize": 4, **style}
        axes.plot(steps, values, color=colour, label=label, **look)


def _thinned(steps: Array, values: Array) -> tuple[Array, Array]:
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


def _finish(axes: Axes, title: str, log_from: float = math.inf, legend: bool = False) -> None:
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

"""The pictures of a comparison: what becomes an axis, a panel, a line, and that nothing is hidden."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from itertools import combinations, product
from pathlib import Path

import pytest
from matplotlib.axis import Axis, Tick
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image
from test_comparison import LOST, job

from trainer.pictures.comparison_axes import Scale
from trainer.pictures.comparison_lines import draw_lines, panels_and_lines, swept_number
from trainer.pictures.comparison_plot import _draw_rows, draw_comparison
from trainer.sweeps.comparison import Comparison, Variant, compare

RATES = ["1e-3", "3e-3", "1e-2", "3e-2"]


def comparison(seeds: int = 2, lost: float = 0.2, higher: bool = False, **keys: list[str]) -> Comparison:
    """A sweep over all combinations, a part of whose runs diverged."""
    draw = random.Random(0)
    jobs = []
    for values in product(*keys.values()):
        typed = [f"{key.replace('__', '.')}={value}" for key, value in zip(keys, values, strict=True)]
        for seed in range(seeds):
            reached = LOST if draw.random() < lost else draw.gauss(2, 0.3)
            figures = {"norm": 10 ** draw.gauss(0, 1), "spikes": draw.random() / 50}
            jobs.append(job(reached, *typed, f"seed={seed}", higher=higher, **figures))
    result = compare(jobs)
    assert result is not None
    return result


def stability(**more: float) -> Comparison:
    return comparison(
        clip=["none", "norm", "zclip"], guard=["off", "skip", "rewind"], optimizer__lr=RATES, **more
    )


ABLATION = [f"no_{part}" for part in ("clip", "guard", "schedule", "normalization", "loss_mix")]


@pytest.mark.parametrize(
    ("keys", "number"),
    [
        ({"optimizer__lr": RATES}, "optimizer.lr"),
        ({"clip": ["none", "norm"], "optimizer__lr": RATES}, "optimizer.lr"),
        ({"clip__max_norm": ["0.1", "1", "10"], "optimizer__lr": RATES}, "optimizer.lr"),
        ({"optimizer__lr": RATES[:2]}, None),
        ({"clip": ["none", "norm", "value"]}, None),
        ({"clip__max_norm": ["1", "2", "inf"]}, None),
    ],
)
def test_the_number_swept_over_most_values_is_the_axis(
    keys: dict[str, list[str]], number: str | None
) -> None:
    assert swept_number(comparison(lost=0, **keys).variants) == number


def test_beyond_four_lines_one_key_becomes_panels() -> None:
    assert panels_and_lines(stability(lost=0).variants, "optimizer.lr") == ("guard", ["clip"])
    few = comparison(lost=0, clip=["none", "norm"], guard=["off", "skip"], lr=RATES)
    assert panels_and_lines(few.variants, "lr") == (None, ["clip", "guard"])
    one = comparison(lost=0, clip=list("abcdef"), lr=RATES)
    assert panels_and_lines(one.variants, "lr") == (None, ["clip"])


def test_a_variant_is_drawn_in_its_panel_at_its_rate() -> None:
    figure = Figure()
    drawn = stability(lost=0)
    draw_lines(figure, drawn, "optimizer.lr")
    for column, guard in enumerate(("off", "skip", "rewind")):
        axes = figure.axes[2 * column]
        assert axes.get_title(loc="left") + axes.get_title() == f"guard={guard}"
        for line, clip in zip(axes.containers, ("none", "norm", "zclip"), strict=True):
            found = [
                v for v in drawn.variants if (v.settings["clip"], v.settings["guard"]) == (clip, guard)
            ]
            points = line[0].get_xydata()
            assert points[:, 1].tolist() == [variant.mean for variant in found]
            rates = [float(variant.settings["optimizer.lr"]) for variant in found]
            assert points[:, 0].tolist() == pytest.approx(rates, rel=0.1)
        assert axes.get_xscale() == "log"


@pytest.mark.parametrize("higher", [False, True])
def test_diverged_runs_are_crosses_with_their_number_at_the_worse_end(higher: bool) -> None:
    drawn = stability(lost=0.3, higher=higher)
    figure = Figure()
    draw_lines(figure, drawn, "optimizer.lr")
    crosses = [(line, axes) for axes in figure.axes for line in axes.lines if line.get_marker() == "x"]
    assert len(crosses) == sum(bool(variant.diverged) for variant in drawn.variants) > 5
    for line, _ in crosses:
        (height,) = line.get_ydata()
        assert height < 0.25 if higher else height > 0.75
    told = sorted(text.get_text().strip() for axes in figure.axes for text in axes.texts)
    counts = sorted(f"{len(v.diverged)}/{v.runs}" for v in drawn.variants if v.diverged)
    assert told == sorted([*counts, "diverged"])


def shown(figure: Figure) -> list[tuple[str, Bbox]]:
    """Every text of the figure and where it stands, in pixels."""
    figure.set_canvas(FigureCanvasAgg(figure))
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    beyond = {
        tick.label1
        for axes in figure.axes
        for axis in (axes.xaxis, axes.yaxis)
        for tick in _unseen(axis)
    }
    texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text not in beyond]
    return [(text.get_text(), text.get_window_extent(renderer)) for text in texts if text.get_visible()]


def _unseen(axis: Axis) -> list[Tick]:
    """Ticks that are not drawn, because they lie outside of what is shown."""
    low, high = axis.get_view_interval()
    return [tick for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high]


@pytest.mark.parametrize(
    "drawn",
    [
        comparison(5, ablation=["all", *ABLATION, "nothing"]),
        comparison(5, higher=True, ablation=["all", *ABLATION, "nothing"]),
        comparison(3, clip=["none", "norm", "zclip"], guard=["off", "skip", "rewind"]),
        stability(),
        stability(higher=True),
        comparison(3, lr=RATES),
        comparison(3, clip=list("abcdef"), optimizer__lr=["0", "0.5", "1.5"]),
    ],
    ids=[
        "rows",
        "rows, more is better",
        "two keys",
        "lines",
        "lines, more is better",
        "one line",
        "six",
    ],
)
def test_no_text_covers_another_or_leaves_the_picture(drawn: Comparison) -> None:
    figure = Figure(dpi=110)
    number = swept_number(drawn.variants)
    if number is None:
        _draw_rows(figure, drawn)
    else:
        draw_lines(figure, drawn, number)
    texts = shown(figure)
    assert len(texts) > 8
    for words, box in texts:
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        assert inside, words
    for (words, box), (others, other) in combinations(texts, 2):
        assert not box.padded(-1).overlaps(other), (words, others)


def values(*rows: Sequence[float]) -> Comparison:
    jobs = [
        job(value, f"clip={index}x", f"seed={seed}", norm=None, spikes=None)
        for index, row in enumerate(rows)
        for seed, value in enumerate(row)
    ]
    result = compare(jobs)
    assert result is not None
    return result


@pytest.mark.parametrize(
    "drawn",
    [
        stability(),
        stability(lost=1.0),
        comparison(2, ablation=["all", *ABLATION]),
        comparison(4, only=["one"]),
        values([1.0, 1.0], [1.0, 1.0]),
        values([LOST, LOST], [LOST, LOST]),
        values([1e-9, 1e12], [0.5, LOST]),
        values([-30.0, 18.0], [0.0, 0.0]),
    ],
    ids=["lines", "all lost", "rows", "seeds", "equal", "rows all lost", "decades", "negative"],
)
def test_whatever_the_values_there_is_a_picture(drawn: Comparison, tmp_path: Path) -> None:
    path = draw_comparison(drawn, tmp_path / "comparison.png")
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert picture.size[0] == 1320
    assert path.stat().st_size < 150_000


@pytest.mark.parametrize("low", [True, False])
@pytest.mark.parametrize("found", [[1.0, 2.0], [1e-3, 1e3], [5.0], []])
def test_a_scale_holds_its_values_and_a_margin_at_one_end(found: list[float], low: bool) -> None:
    scale = Scale(found, 0.2, low)
    first, last = scale.limits
    held = scale.held
    assert all(held[0] <= value <= held[1] for value in found)
    into = math.log10 if scale.kind == "log" else float
    lost = into(scale.lost[1]) - into(scale.lost[0])
    assert lost / (into(last) - into(first)) == pytest.approx(0.2)
    assert (scale.lost[0] == first) == low
    assert scale.place(0.5) == pytest.approx(0.1 if low else 0.9)


def test_variants_without_a_spike_need_no_row_for_them() -> None:
    quiet = comparison(2, lost=0, lr=RATES)
    silent = [
        Variant(v.settings, v.values, [], v.norms, dict.fromkeys(v.spikes, 0.0)) for v in quiet.variants
    ]
    figure = Figure()
    draw_lines(figure, Comparison("val/loss", False, silent), "lr")
    assert len(figure.axes) == 1

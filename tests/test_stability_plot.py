"""The stability map: every cell is told, those that diverged or spiked are marked."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure
from sweeps import LOST, job, sweep
from test_comparison_plot import shown
from test_curves import size_of

from trainer.pictures.drawing import RED, STYLE
from trainer.pictures.stability_plot import Colours, draw_maps
from trainer.sweeps.jobs import SweptJob
from trainer.sweeps.stability import Map, maps, rates

LRS, NORMS = [0.001, 0.01, 0.1, 1.0], [0.1, 1.0, 10.0]


def grid(seeds: int = 1, **keys: list[Any]) -> list[SweptJob]:
    def value(optimizer__lr: float, clip__max_norm: float, seed: int, **_: Any) -> float:
        if optimizer__lr * clip__max_norm > 5 or (optimizer__lr == 1 and seed):
            return LOST
        return 0.1 + abs(math.log10(optimizer__lr * clip__max_norm) + 2) / 10 + seed / 1000

    return sweep(value, optimizer__lr=LRS, clip__max_norm=NORMS, seed=list(range(seeds)), **keys)


def drawn(jobs: list[SweptJob], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Figure:
    kept: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: kept.append(figure))
    draw_maps(maps(jobs), rates(jobs), ("val/loss", False), folder / "map.png")
    return kept[0]


def test_a_cell_says_what_was_reached_and_is_marked_where_it_diverged_or_spiked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = grid()
    jobs[0] = job(0, jobs[0].overrides, 0.3, spikes=0.01)
    jobs[1] = job(1, jobs[1].overrides, 0.2, skipped=1)
    axes, bars = drawn(jobs, tmp_path, monkeypatch).axes
    lost = [line for line in axes.lines if line.get_marker() == "x"]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in lost] == [(3, 2)]
    assert {line.get_color() for line in lost} == {RED}
    upset = [line for line in axes.lines if line.get_marker() == "^"]
    assert [(round(line.get_xdata()[0]), round(line.get_ydata()[0])) for line in upset] == [
        (0, 0),
        (0, 1),
    ]
    assert len([text for text in axes.texts if text.get_text()]) == len(jobs) - 1
    assert len(bars.patches) == len(NORMS)


def test_of_some_seeds_that_diverged_the_number_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    axes = drawn(grid(3), tmp_path, monkeypatch).axes[0]
    assert sum(text.get_text() == "×2 of 3" for text in axes.texts) == 2


@pytest.mark.parametrize("keys", [{}, {"clip__norm_type": ["1", "2", "inf"]}])
@pytest.mark.parametrize("seeds", [1, 3])
def test_no_text_covers_another_or_leaves_the_picture(
    seeds: int, keys: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = drawn(grid(seeds, **keys), tmp_path, monkeypatch)
    with rc_context(STYLE):
        texts = shown(figure)
    assert len(texts) > 20
    for words, box in texts:
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        assert inside, words
    for (words, box), (others, other) in combinations(texts, 2):
        assert not box.padded(-1).overlaps(other), (words, others)


@pytest.mark.parametrize("higher", [False, True])
def test_colours_run_from_the_best_and_one_cell_far_off_does_not_make_the_others_alike(
    higher: bool,
) -> None:
    sign = -1 if higher else 1
    values = {1: 1.0, 2: 2.0, 3: 3.0, 4: 1e6}
    (one,) = maps(sweep(lambda a, b: sign * values[a], higher=higher, a=[1, 2, 3, 4], b=[1, 2]))
    colours = Colours([one], higher)
    shares = [colours.share(sign * value) for value in values.values()]
    assert shares[0] == 0.0
    assert shares[-1] == 1.0
    assert shares[2] - shares[1] > 0.1


@pytest.mark.parametrize("value", [1.0, LOST], ids=["equal", "all lost"])
def test_a_map_without_a_difference_is_drawn_too(value: float, tmp_path: Path) -> None:
    jobs = sweep(lambda **_: value, optimizer__lr=LRS, a__b=[1, 2])
    found: list[Map] = maps(jobs)
    assert size_of(draw_maps(found, rates(jobs), ("val/loss", False), tmp_path / "map.png"))[0] == 1320

"""The picture of a report: where values stand, that nothing is hidden, that anything can be drawn."""

from __future__ import annotations

import math
import random
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from matplotlib import rc_context
from matplotlib.figure import Figure
from sweeps import LOST, sweep
from test_comparison_plot import shown
from test_curves import size_of

from trainer.pictures.drawing import RED, STYLE
from trainer.pictures.field import field_of
from trainer.pictures.lanes import Lane
from trainer.pictures.parallel_plot import _lines
from trainer.pictures.report_plot import draw_overview
from trainer.sweeps.jobs import SweptJob


def lane(*values: Any) -> Lane:
    return Lane("a.b", [{"a.b": str(value)} for value in values])


def test_numbers_stand_on_a_logarithmic_scale_where_they_span_a_decade() -> None:
    wide = lane(100, 1, 10, 1000)
    assert wide.log
    assert [wide.places[level] for level in wide.levels] == pytest.approx([0.125, 0.375, 0.625, 0.875])
    narrow = lane(1, 2, 4)
    assert not narrow.log
    low, middle, high = (narrow.places[level] for level in narrow.levels)
    assert middle - low == pytest.approx((high - middle) / 2)


def test_values_that_would_crowd_and_words_stand_at_equal_distances() -> None:
    for values in ((0, 0.001, 0.01, 1), ("none", "norm", "value", "agc")):
        places = lane(*values).places
        assert list(places.values()) == pytest.approx([0.125, 0.375, 0.625, 0.875])


def test_a_job_without_the_key_has_a_place_too() -> None:
    some = Lane("a.b", [{"a.b": "1"}, {}, {"a.b": "2"}])
    assert len(set(some.places.values())) == 3


def test_jobs_with_one_value_stand_by_rank_beside_it_and_nearer_than_the_next() -> None:
    own = lane(1, 10, 1, 1, 10)
    places = own.spread([4, 0, 2, 3, 1])
    assert places[2] < places[3] < places[0]
    assert max(abs(places[job] - own.places["1"]) for job in (0, 2, 3)) < own.gap / 2
    scattered = own.spread([4, 0, 2, 3, 1], scattered=True)
    assert len(set(scattered)) == 5


def test_a_number_that_was_drawn_has_a_few_round_ticks() -> None:
    draw = random.Random(0)
    where, labels = lane(*(10 ** draw.uniform(-4, 0) for _ in range(40))).ticks()
    assert set(labels) <= {"1e-4", "0.0001", "0.001", "0.01", "0.1", "1"}
    assert len(labels) >= 3
    assert all(0 < place < 1 for place in where)


@pytest.mark.parametrize("higher", [False, True])
def test_a_job_far_off_the_others_leaves_them_their_room(higher: bool) -> None:
    sign = -1 if higher else 1
    values = {1: sign * 1.0, 2: sign * 1.1, 3: sign * 1.2, 4: sign * 1.3, 5: sign * 1e6, 6: sign * LOST}
    field = field_of(sweep(lambda a: values[a], a=list(values), higher=higher), higher)
    assert [math.isnan(value) for value in field.values] == [False] * 4 + [True] * 2
    assert field.lost == "diverged or off the scale"
    assert field.ranks == [0, 1, 2, 3, 4, 5]
    assert [field.colour(job) for job in (4, 5)] == [RED, RED]
    assert max(map(abs, field.scale.held)) < 2


def test_equal_values_have_the_same_colour() -> None:
    values = {1: 1.0, 2: 2.0, 3: 2.0, 4: 3.0}
    field = field_of(sweep(lambda a: values[a], a=list(values)), False)
    assert field.shares == pytest.approx([0, 0.5, 0.5, 1])
    assert not field.lost


def mixed(rows: int) -> list[SweptJob]:
    """Words, numbers, a number without a scale, seeds; a part of it diverged, failed, or far off."""
    draw = random.Random(0)

    def value(optimizer__lr: float, clip: str, **_: Any) -> float | None:
        if optimizer__lr == 1.0 and clip == "none":
            return draw.choice([LOST, None, 1e9])
        return draw.gauss(1, 0.2)

    return sweep(
        value,
        clip=["none", "norm"][:rows],
        optimizer__lr=[0.001, 0.01, 0.1, 1.0],
        optimizer__weight_decay=[0, 0.1, 0.2, 0.3][:rows],
        seed=[0, 1][:rows],
    )


def test_every_job_with_a_result_is_a_line_and_the_best_is_on_top() -> None:
    jobs = [job for job in mixed(4) if job.value is not None]
    field = field_of(jobs, False)
    lanes = [Lane("clip", [{"clip": str(n % 3)} for n in range(len(jobs))])]
    axes = Figure().add_axes((0, 0, 1, 1))
    _lines(axes, lanes, field)
    (drawn,) = axes.collections
    assert len(drawn.get_paths()) == len(jobs)
    last = drawn.get_paths()[-1].vertices[-1][1]
    best = field.ranks.index(0)
    assert last == pytest.approx(field.scale.shares(field.values, field.ranks)[best])
    assert max(drawn.get_linewidths()) == drawn.get_linewidths()[-1]


@pytest.mark.parametrize("rows", [1, 4])
def test_no_text_covers_another_or_leaves_the_picture(
    rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: kept.append(figure))
    draw_overview(mixed(rows), tmp_path / "report.png")
    with rc_context(STYLE):
        texts = shown(kept[0])
    assert len(texts) > 10
    for words, box in texts:
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= kept[0].bbox.x1 and box.y1 <= kept[0].bbox.y1
        assert inside, words
    for (words, box), (others, other) in combinations(texts, 2):
        assert not box.padded(-1).overlaps(other), (words, others)


@pytest.mark.parametrize(
    "jobs",
    [
        sweep(lambda a: LOST, a=[1, 2, 3]),
        sweep(lambda a: 1.0, a=[1, 2, 3]),
        sweep(lambda a, b: 1.0 if a else LOST, a=[0, 1], b=["x" * 50, "y"]),
        sweep(lambda a, b: 10.0**a, a=list(range(-9, 9)), b=[1, 2]),
        sweep(lambda a: -1.0 if a else None, a=[0, 1, 2], higher=True),
    ],
    ids=["all lost", "equal", "long words", "decades", "negative"],
)
def test_whatever_the_values_there_is_a_picture(jobs: list[SweptJob], tmp_path: Path) -> None:
    assert size_of(draw_overview(jobs, tmp_path / "report.png"))[0] == 1320


def test_where_nothing_was_swept_or_nothing_came_of_it_there_is_none(tmp_path: Path) -> None:
    assert draw_overview(sweep(lambda: 1.0), tmp_path / "report.png") is None
    assert draw_overview(sweep(lambda a: None, a=[1, 2]), tmp_path / "report.png") is None

"""A comparison over seeds: who is grouped, what is averaged, and when a difference is called one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

import numpy as np
import pytest
from scipy import stats

from trainer.sweeps.comparison import (
    HELPS,
    HURTS,
    NOTHING,
    OFTENER,
    RARER,
    SAME,
    STUDENT,
    Comparison,
    Difference,
    compare,
)

LOST = math.inf


@dataclass
class Job:
    """What a sweep knows of a finished job."""

    overrides: list[str]
    summary: dict[str, Any]
    value: float | None


def job(
    value: float | None,
    *overrides: str,
    higher: bool = False,
    status: str = "",
    norm: float | None = 1.0,
    spikes: float | None = 0.0,
) -> Job:
    ended = "completed" if value is not None and math.isfinite(value) else "diverged"
    objective = {"tag": "val/loss", "value": value, "higher_is_better": higher}
    summary = {"status": status or ended, "objective": objective}
    summary |= {"grad_norm": {"max": norm}, "spikes": {"loss": spikes, "grad_norm": 1.0}}
    return Job(list(overrides), summary, value)


def sweep(higher: bool = False, **values: list[float]) -> Comparison:
    """Variants by name, each with a value per seed."""
    jobs = [
        job(value, f"clip={name}", f"seed={seed}", "data=text", higher=higher)
        for name, row in values.items()
        for seed, value in enumerate(row)
    ]
    comparison = compare(jobs)
    assert comparison is not None
    return comparison


def against(reference: list[float], other: list[float], higher: bool = False) -> Difference:
    comparison = sweep(higher, a=reference, b=other)
    assert comparison.difference(comparison.variants[0]) is None
    difference = comparison.difference(comparison.variants[1])
    assert difference is not None
    return difference


def test_jobs_are_grouped_by_everything_but_their_seed() -> None:
    jobs = [
        job(seed + len(clip), f"seed={seed}", f"clip={clip}", f"guard={guard}", "data=text")
        for clip in ("none", "norm", "value")
        for seed in (7, 3)
        for guard in ("off", "skip")
    ]
    comparison = compare(jobs)
    assert comparison is not None
    assert [variant.settings for variant in comparison.variants[:3]] == [
        {"clip": "none", "guard": "off"},
        {"clip": "none", "guard": "skip"},
        {"clip": "norm", "guard": "off"},
    ]
    assert len(comparison.variants) == 6
    assert all(list(variant.values) == ["7", "3"] for variant in comparison.variants)
    assert comparison.variants[-1].name == "clip=value guard=skip"


def test_one_variant_over_seeds_is_a_mean_with_its_spread() -> None:
    comparison = compare([job(value, f"seed={seed}") for seed, value in enumerate([1.0, 2.0, 6.0])])
    assert comparison is not None
    (variant,) = comparison.variants
    assert (variant.name, variant.runs, variant.mean) == ("", 3, 3.0)
    assert variant.deviation == pytest.approx(math.sqrt(7))


@pytest.mark.parametrize(
    "jobs",
    [
        [],
        [job(1.0, "clip=none"), job(2.0, "clip=norm")],
        [job(1.0, "clip=none", "seed=0"), job(2.0, "clip=norm", "seed=1")],
        [job(1.0, "seed=0"), job(None, "seed=1", status="failed")],
    ],
    ids=["no jobs", "no seeds", "a seed each", "the other failed"],
)
def test_without_two_seeds_there_is_nothing_to_compare(jobs: list[Job]) -> None:
    assert compare(jobs) is None


def test_a_job_without_a_result_is_left_out_and_a_diverged_one_is_counted_apart() -> None:
    jobs = [job(1.0, "seed=0"), job(3.0, "seed=1"), job(LOST, "seed=2"), job(math.nan, "seed=3")]
    jobs += [job(2.0, "seed=4", status="interrupted"), Job(["seed=5"], {"status": "failed"}, None)]
    comparison = compare(jobs)
    assert comparison is not None
    (variant,) = comparison.variants
    assert (variant.runs, variant.mean, variant.diverged) == (4, 2.0, ["2", "3"])
    assert variant.deviation == pytest.approx(stdev([1.0, 3.0]))


def test_norms_are_told_by_their_median_and_spikes_by_their_mean() -> None:
    jobs = [
        job(1.0, f"seed={n}", norm=norm, spikes=norm / 1e4) for n, norm in enumerate([1.0, 2.0, 99.0])
    ]
    jobs += [job(LOST, "seed=3", norm=math.inf, spikes=None), job(LOST, "seed=4", norm=None)]
    comparison = compare(jobs)
    assert comparison is not None
    (variant,) = comparison.variants
    assert variant.largest_norm == 2.0
    assert variant.spiking == pytest.approx(102e-4 / 4)


def test_differences_are_paired_by_seed() -> None:
    """What the seeds differ in is far larger than the difference, and drops out."""
    reference, other = [1.0, 5.0, 9.0, 20.0], [0.9, 4.8, 8.9, 19.8]
    difference = against(reference, other)
    gains = [a - b for a, b in zip(reference, other, strict=True)]
    assert difference.mean == pytest.approx(mean(gains))
    assert difference.error == pytest.approx(stdev(gains) / 2)
    assert (difference.pairs, difference.verdict) == (4, HELPS)
    assert against(reference, other, higher=True).verdict == HURTS
    assert against(reference, other, higher=True).mean == pytest.approx(-mean(gains))


def test_only_seeds_that_reached_an_end_in_both_are_paired() -> None:
    difference = against([1.0, 2.0, LOST, 4.0], [1.5, LOST, 2.5, 4.5])
    assert (difference.mean, difference.pairs) == (-0.5, 2)


@pytest.mark.parametrize(
    ("reference", "other", "verdict"),
    [
        ([1.0, 2.0], [0.5], ""),
        ([1.0, 2.0], [LOST], ""),
        ([1.0, 2.0], [1.0, 2.0], SAME),
        ([1.0, 2.0], [0.5, 1.6], NOTHING),  # two pairs say little, 12.7 standard errors
        ([1.0, 2.0], [0.5, 1.51], HELPS),
        ([1.0, 2.0, 3.0], [1.1, 2.1, 2.9], NOTHING),
        ([1.0, 2.0, 3.0], [1.5, 2.6, 3.7], HURTS),
        ([1.0, 2.0, 3.0], [0.5, 1.4, LOST], OFTENER),
        ([1.0, LOST, LOST], [9.0, 9.0, LOST], RARER),
        ([LOST, LOST], [LOST, LOST], ""),
    ],
)
def test_a_verdict_is_given_where_there_is_one(
    reference: list[float], other: list[float], verdict: str
) -> None:
    assert against(reference, other).verdict == verdict


def test_the_limit_is_students() -> None:
    assert pytest.approx(stats.t.ppf(0.975, range(1, 11)), abs=6e-3) == STUDENT


@pytest.mark.parametrize("seeds", [2, 3, 5, 20])
def test_what_does_nothing_is_called_something_once_in_twenty(seeds: int) -> None:
    draws = np.random.default_rng(0).normal(size=(2000, 2, seeds)).tolist()
    said = sum(against(a, b).verdict in (HELPS, HURTS) for a, b in draws)
    assert 0.03 < said / 2000 < 0.065


def test_the_best_is_that_of_the_best_mean_whatever_is_better() -> None:
    values = {"a": [2.0, 3.0], "b": [1.0, 2.0], "c": [LOST, LOST], "d": [9.0, LOST]}
    best = [sweep(higher, **values).best for higher in (False, True)]
    assert [variant and variant.settings["clip"] for variant in best] == ["b", "d"]
    assert sweep(a=[LOST, LOST]).best is None


def test_the_rows_are_plain_values() -> None:
    rows = sweep(a=[1.0, 2.0], b=[LOST, 1.0]).rows()
    assert rows[0] | {"values": None} == {
        "variant": {"clip": "a"},
        "runs": 2,
        "diverged": 0,
        "mean": 1.5,
        "standard_deviation": stdev([1.0, 2.0]),
        "difference": None,
        "standard_error": None,
        "pairs": 0,
        "verdict": "reference",
        "largest_norm": 1.0,
        "spikes": 0.0,
        "values": None,
    }
    assert rows[1]["values"] == {"1": 1.0}
    assert (rows[1]["difference"], rows[1]["pairs"], rows[1]["verdict"]) == (1.0, 1, OFTENER)

"""The effect of each swept key, whatever the others are."""

from __future__ import annotations

from statistics import mean, stdev

import pytest
from sweeps import LOST, sweep

from trainer.sweeps.marginals import MOST_VALUES, RANGES, effects


def test_a_key_is_averaged_over_all_values_of_the_others() -> None:
    values = {("none", 1): 1.0, ("none", 10): 4.0, ("norm", 1): 2.0, ("norm", 10): LOST}
    found = effects(sweep(lambda clip, lr: values[clip, lr], clip=["none", "norm"], lr=[10, 1]))
    assert [effect.key for effect in found] == ["clip", "lr"]
    clip, lr = found
    none, norm = clip.levels
    assert none.mean == mean([1.0, 4.0])
    assert none.deviation == pytest.approx(stdev([1.0, 4.0]))
    assert (norm.mean, norm.deviation, norm.runs, len(norm.diverged)) == (2.0, None, 2, 1)
    assert [level.settings["lr"] for level in lr.levels] == ["1", "10"]  # numbers rise
    assert (lr.numeric, clip.numeric) == (True, False)


def test_failed_jobs_have_no_effect() -> None:
    jobs = sweep(lambda clip: None if clip == "none" else 1.0, clip=["none", "norm", "value"])
    (clip,) = effects(jobs)
    assert [level.settings["clip"] for level in clip.levels] == ["norm", "value"]


def test_what_all_jobs_have_alike_is_no_key_and_weights_in_braces_are_one_each() -> None:
    mixes = ["{alpha:1,beta:0}", "{alpha:0.5,beta:0.5}"]
    found = effects(sweep(lambda loss, seed: 1.0, loss=mixes, seed=[0]))
    assert [effect.key for effect in found] == ["loss.alpha", "loss.beta"]


def test_a_number_that_was_drawn_is_told_by_ranges_with_as_many_jobs_in_each() -> None:
    draws = [0.001 * 1.3**power for power in range(6 * RANGES)]
    (rate,) = effects(sweep(lambda lr: lr * 2, lr=draws[::-1]))
    assert [level.runs for level in rate.levels] == [6] * RANGES
    assert rate.levels[0].mean == pytest.approx(mean(draws[:6]) * 2)
    assert rate.levels[0].settings["lr"] == "0.00100 to 0.00371"
    (few,) = effects(sweep(lambda lr: lr, lr=draws[:MOST_VALUES]))
    assert len(few.levels) == MOST_VALUES

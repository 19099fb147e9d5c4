"""The warm-up in front of a schedule; its formula is among those of test_schedulers."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from schedule_formulas import HORIZON, LR, PER_EPOCH, drive, optimizer

from trainer.schedulers import constant, cosine, plateau, step


@pytest.mark.parametrize("warmup", [1, 2, 100, HORIZON.steps - 1])
@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_a_warm_up_rises_from_above_zero_to_the_rate(warmup: int, shape: str) -> None:
    target = optimizer()
    schedule = constant(target, HORIZON, warmup=warmup, warmup_shape=shape)
    (drawn,) = drive(schedule, target)
    rising = drawn[: warmup + 1]
    assert rising[0] > 0
    assert all(a < b for a, b in pairwise(rising))
    assert set(drawn[warmup:]) == {LR}
    steps = [b - a for a, b in pairwise([0.0, *rising])]
    if shape == "linear":
        assert steps == pytest.approx([LR / (warmup + 1)] * (warmup + 1), rel=1e-9)
    else:  # as slow at the end as at the beginning
        assert steps == pytest.approx(steps[::-1], rel=1e-6)


@pytest.mark.parametrize("bad", [HORIZON.steps, 10**6, -1, 1.5, True, None])
def test_a_warm_up_as_long_as_the_run_is_refused(bad: Any) -> None:
    for factory in (constant, step, cosine, plateau):
        with pytest.raises(ValueError, match=r"^warmup must be a whole number >= 0 and < 265, got "):
            factory(optimizer(), HORIZON, warmup=bad)
    with pytest.raises(ValueError, match=r"^warmup_shape must be one of linear, cosine, got 'cos'"):
        cosine(optimizer(), HORIZON, warmup_shape="cos")


def test_the_metric_is_not_watched_before_the_plateau_begins() -> None:
    target = optimizer()
    schedule = plateau(target, HORIZON, patience=0, warmup=2 * PER_EPOCH)
    rates = []
    for value in (1.0, 1.0, 5.0, 4.0, 4.0):  # the first two in the warm-up
        for _ in range(PER_EPOCH):
            schedule.step_ended()
        schedule.epoch_ended({"val/loss": value})
        rates.append(target.param_groups[0]["lr"])
    assert rates[1:] == [LR, LR, LR, LR / 2]

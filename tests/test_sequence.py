"""Schedules one after another: what each part sees, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from schedule_formulas import HORIZON, LR, PER_EPOCH, drive, optimizer

from trainer.schedulers import Horizon, Schedule, constant, cosine, one_cycle, plateau, sequential, step

Built = list[Horizon]


def noting(seen: Built) -> Any:
    """A factory that notes its horizon."""

    def build(optimizer: torch.optim.Optimizer, horizon: Horizon) -> Schedule:
        seen.append(horizon)
        return Schedule.constant(optimizer)

    return build


def test_each_part_gets_its_own_horizon() -> None:
    seen: Built = []
    sequential(optimizer(), HORIZON, [noting(seen)] * 3, [3, 10])
    assert [(h.steps, h.epochs) for h in seen] == [(15, 3), (50, 10), (200, 40)]
    seen.clear()
    sequential(optimizer(), HORIZON, [noting(seen)] * 2, [7], interval="step")
    assert [(h.steps, h.epochs) for h in seen] == [(7, 2), (258, 52)]  # both count the epoch that is cut
    assert {h.per_epoch for h in seen} == {PER_EPOCH}


def test_a_schedule_by_epochs_begins_anew_at_the_end_of_an_epoch() -> None:
    """The end of the epoch that hands over to it is not yet its own."""
    target = optimizer()
    schedule = sequential(
        target, HORIZON, [constant, lambda o, h: step(o, h, step_size=1, gamma=0.1)], [2]
    )
    (drawn,) = drive(schedule, target, 0, 4 * PER_EPOCH)
    assert drawn == pytest.approx(3 * PER_EPOCH * [LR] + PER_EPOCH * [LR / 10])


def test_one_cycle_leaves_nothing_to_the_schedule_after_it() -> None:
    target = optimizer()
    before = {key: value for key, value in target.param_groups[0].items() if key != "params"}
    schedule = sequential(target, HORIZON, [one_cycle, constant], [10])
    (momenta,) = drive(schedule, target, setting="momentum")
    assert momenta[0] == 0.95
    assert set(momenta[10 * PER_EPOCH :]) == {before["momentum"]}
    after = {key: value for key, value in target.param_groups[0].items() if key != "params"}
    assert after == before | {"initial_lr": LR}


def test_it_names_the_metrics_of_all_its_parts() -> None:
    parts = [
        lambda o, h: plateau(o, h, monitor="val/psnr"),
        cosine,
        lambda o, h: plateau(o, h, warmup=3),
    ]
    schedule = sequential(optimizer(), HORIZON, parts, [3, 3])
    assert schedule.monitors == ["val/psnr", "val/loss"]


@pytest.mark.parametrize(
    ("schedules", "lengths", "message"),
    [
        ([], [], "schedules must be a list of schedule factories"),
        (None, [], "schedules must be a list of schedule factories"),
        ([{"_target_": "x"}], [], "schedules must be a list of schedule factories"),
        ([cosine, step], [], "lengths must be a list of 1"),
        ([cosine, step], 50, "lengths must be a list of 1"),
        ([cosine, step], [50, 50], "lengths must be a list of 1"),
        ([cosine, step], [0], r"lengths\[0\] must be a whole number >= 1"),
        ([cosine, step, step], [1, 2.5], r"lengths\[1\] must be a whole number >= 1"),
        ([cosine, step], [53], "lengths must sum to less than the run's 53 epoch"),
        ([cosine, lambda o, h: step(o, h, gamma=0)], [5], r"schedules\[1\]: gamma must be > 0"),
        ([lambda o, h: cosine(o, h, warmup=25), step], [5], r"schedules\[0\]: warmup must be .* < 25"),
        ([torch.optim.lr_scheduler.StepLR], [], r"schedules\[0\] must make a Schedule, got StepLR"),
        ([cosine, lambda optimizer: None], [5], r"schedules\[1\]: .*takes 1 positional argument"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(schedules: Any, lengths: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        sequential(optimizer(), HORIZON, schedules, lengths)
    with pytest.raises(ValueError, match=r"^interval must be one of step, epoch"):
        sequential(optimizer(), HORIZON, [cosine], [], interval="day")


def test_a_single_schedule_is_a_sequence_too() -> None:
    target, alone = optimizer(), optimizer()
    assert drive(sequential(target, HORIZON, [cosine], []), target) == drive(
        cosine(alone, HORIZON), alone
    )
    assert math.isfinite(target.param_groups[0]["lr"])

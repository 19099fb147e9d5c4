"""Stable learning rates, their sensitivity, and which sweeps make a map."""

from __future__ import annotations

import math

import pytest
from sweeps import LOST, job, sweep

from trainer.sweeps.jobs import SweptJob
from trainer.sweeps.stability import maps, rates

LRS = [0.001, 0.01, 0.1, 1.0, 10.0]


def over_rates(*losses: float) -> list[SweptJob]:
    return [
        job(n, [f"optimizer.lr={lr}"], loss)
        for n, (lr, loss) in enumerate(zip(LRS, losses, strict=False))
    ]


def test_sensitivity_is_the_mean_distance_from_the_best_no_loss_worse_than_the_first() -> None:
    """The definition of arXiv 2309.14322, by hand: (1.5 + 0.5 + 0 + 1.5 + 1.5) / 5."""
    found = rates(over_rates(2.5, 1.0, 0.5, 70.0, LOST))
    assert found is not None
    key, (row,) = found
    assert key == "optimizer.lr"
    assert row.best == 0.1
    assert row.sensitivity == pytest.approx((1.5 + 0.5 + 0 + 1.5 + 1.5) / 5)


def test_the_same_loss_everywhere_is_not_sensitive() -> None:
    found = rates(over_rates(0.5, 0.5, 0.5))
    assert found is not None
    assert found[1][0].sensitivity == 0.0


@pytest.mark.parametrize(
    ("losses", "stable"),
    [
        ((1.9, 1.0, 0.5, 1.0, LOST), [0.01, 0.1, 1.0]),  # 1.25 is half of the way from 2 to 0.5
        ((1.9, 1.0, 0.5, 2.1, 1.0), [0.01, 0.1]),  # what lies beyond a gap is another range
        ((0.5, 0.6, 0.7, 0.8, 0.9), LRS),
        ((2.1, 2.0, 2.2, LOST, LOST), []),  # nothing is learned
        ((LOST, LOST, LOST, LOST, LOST), []),
    ],
)
def test_stable_rates_are_neighbours_of_the_best_that_learn(
    losses: tuple[float, ...], stable: list[float]
) -> None:
    found = rates(over_rates(*losses))
    assert found is not None
    assert found[1][0].stable == stable


@pytest.mark.parametrize("upset", [{"spikes": 0.01}, {"skipped": 2}])
def test_a_rate_at_which_a_loss_spikes_or_a_step_is_refused_is_not_stable(
    upset: dict[str, float],
) -> None:
    jobs = over_rates(1.0, 0.5, 0.6, 0.7)
    jobs[2] = job(2, ["optimizer.lr=0.1"], 0.6, **upset)
    found = rates(jobs)
    assert found is not None
    assert found[1][0].stable == [0.001, 0.01]


def test_there_is_a_row_for_each_setting_of_everything_else_over_the_median_of_its_seeds() -> None:
    def loss(optimizer__lr: float, clip: str, seed: int) -> float:
        return (1.0 if clip == "none" else 0.5) + optimizer__lr * (seed == 0)

    found = rates(sweep(loss, optimizer__lr=LRS[:3], clip=["none", "norm"], seed=[0, 1, 2]))
    assert found is not None
    assert [row.settings for row in found[1]] == [{"clip": "none"}, {"clip": "norm"}]
    assert list(found[1][0].losses.items()) == [(lr, 1.0) for lr in LRS[:3]]


def test_too_few_rates_or_none_say_nothing() -> None:
    assert rates(over_rates(1.0, 2.0)) is None
    assert rates(sweep(lambda clip: 1.0, clip=["none", "norm"])) is None
    assert rates([]) is None


def test_two_numbers_on_a_grid_are_a_map_and_the_learning_rate_goes_across() -> None:
    jobs = sweep(
        lambda clip__max_norm, optimizer__lr, seed: clip__max_norm * optimizer__lr + seed,
        clip__max_norm=[10, 1, 0.1, 0.01],
        optimizer__lr=LRS[:3],
        seed=[0, 1, 5],
    )
    (one,) = maps(jobs)
    assert (one.x, one.y) == ("optimizer.lr", "clip.max_norm")
    assert (one.xs, one.ys) == (LRS[:3], [0.01, 0.1, 1.0, 10.0])
    assert len(one.cells) == 12
    assert one.cells[0.1, 10.0].middle == pytest.approx(10 * 0.1 + 1)  # the median of the seeds


def test_each_combination_of_what_else_was_swept_is_a_map_of_its_own() -> None:
    keys = {"optimizer__lr": LRS[:2], "data__batch_size": [8, 16], "clip": ["none", "norm", "value"]}
    found = maps(sweep(lambda **_: 1.0, **keys))
    assert [one.settings["clip"] for one in found] == ["none", "norm", "value"]
    many = keys | {"clip": list("abcde")}
    assert maps(sweep(lambda **_: 1.0, **many)) == []


def test_scattered_numbers_and_a_single_one_are_no_map() -> None:
    drawn = [job(n, [f"optimizer.lr={math.exp(-n)}", f"a.b={math.cos(n)}"], 1.0) for n in range(9)]
    assert maps(drawn) == []
    assert maps(over_rates(1.0, 2.0, 3.0)) == []
    assert maps(sweep(lambda **_: None, optimizer__lr=LRS, a__b=[1, 2])) == []  # all failed

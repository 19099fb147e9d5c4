"""Guards: which steps they refuse, what they count, when they end the run."""

from __future__ import annotations

import math

import pytest
import torch

from trainer.guard import GRADIENT, LOSS, Off, Skip

BAD = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("bad", BAD)
def test_skip_refuses_a_non_finite_loss_or_norm(bad: float) -> None:
    good = torch.tensor(1.0)
    assert Skip().judge(torch.tensor(bad), good)
    assert Skip().judge(good, torch.tensor(bad))
    assert not Skip().judge(good, good)


def test_skip_judges_a_large_but_finite_step_as_good() -> None:
    assert not Skip().judge(torch.tensor(3e38), torch.tensor(3e38, dtype=torch.float64))
    assert not Skip().judge(torch.tensor(3e38), torch.tensor(3e38))


def test_skip_judges_every_member_for_itself() -> None:
    losses = torch.tensor([1.0, math.nan, 1.0])
    norms = torch.tensor([1.0, 1.0, math.inf])
    verdicts = Skip().judge(losses, norms)
    assert isinstance(verdicts, torch.Tensor)
    assert verdicts.tolist() == [False, True, True]


def test_skip_ends_the_run_one_refused_step_after_its_patience() -> None:
    guard = Skip(max_consecutive=2)
    assert guard.settle(math.nan, 1.0, True) is None
    assert guard.settle(1.0, math.inf, True) is None
    reason = guard.settle(math.nan, 1.0, True)
    assert reason is not None
    assert "3 refused" in reason
    assert guard.causes == {LOSS: 2, GRADIENT: 1}


def test_an_accepted_step_renews_the_patience() -> None:
    guard = Skip(max_consecutive=1)
    for _ in range(5):
        assert guard.settle(math.nan, 1.0, True) is None
        assert guard.settle(1.0, 1.0, False) is None
    assert guard.skipped == 5


def test_stop_is_a_guard_without_patience() -> None:
    assert Skip(max_consecutive=0).settle(math.nan, 1.0, True) is not None


def test_skip_restores_its_counters() -> None:
    first, second = Skip(max_consecutive=3), Skip(max_consecutive=3)
    for _ in range(3):
        first.settle(math.nan, 1.0, True)
    second.load_state_dict(first.state_dict())
    assert second.settle(math.nan, 1.0, True) is not None
    assert second.skipped == 4


def test_off_refuses_nothing_but_ends_the_run_on_a_non_finite_loss() -> None:
    guard = Off()
    assert guard.judge(torch.tensor(math.nan), torch.tensor(1.0)) is False
    assert guard.settle(1.0, math.nan, False) is None
    assert guard.settle(math.inf, 1.0, False) is not None


@pytest.mark.parametrize("bad", [-1, 1.5, True, None, "3"])
def test_a_patience_that_is_no_count_is_refused(bad: object) -> None:
    with pytest.raises(ValueError, match="max_consecutive must be a whole number"):
        Skip(bad)  # type: ignore[arg-type]

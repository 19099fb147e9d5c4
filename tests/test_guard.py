"""Guards: which steps they refuse, what they count, when they end the run."""

from __future__ import annotations

import math

import pytest
import torch

from trainer.guard import (
    BUFFER,
    BUFFER_SPIKE,
    GRADIENT,
    GRADIENT_SPIKE,
    LOSS,
    LOSS_SPIKE,
    Off,
    Rewind,
    Skip,
)

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
    assert (guard.causes[LOSS], guard.causes[GRADIENT]) == (2, 1)


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


def steady(guard: Skip, steps: int = 48, level: float = 1.0) -> Skip:
    """The guard after so many good steps: its windows are full enough."""
    for _ in range(steps):
        assert guard.settle(level, level, False) is None
    return guard


def spike(guard: Skip, value: float = 1e6) -> str | None:
    """One step with a finite loss far out, as the loop would judge and settle it."""
    verdict = guard.judge(torch.tensor(value), torch.tensor(1.0))
    return guard.settle(value, 1.0, bool(verdict))


def test_skip_counts_every_cause_by_its_name() -> None:
    guard = steady(Skip())
    for loss, norm in [(math.nan, 1.0), (1.0, math.inf), (9.0, 1.0), (1.0, 9.0)]:
        assert guard.judge(torch.tensor(loss), torch.tensor(norm))
        assert guard.settle(loss, norm, True) is None
    once = dict.fromkeys((LOSS, GRADIENT, LOSS_SPIKE, GRADIENT_SPIKE), 1)
    assert guard.causes == once | {BUFFER: 0, BUFFER_SPIKE: 0}
    assert guard.skipped == 4


@pytest.mark.parametrize(
    ("value", "cause"), [(math.nan, BUFFER), (math.inf, BUFFER), (9.0, BUFFER_SPIKE), (2.0, None)]
)
def test_buffers_are_judged_where_loss_and_gradient_look_ordinary(
    value: float, cause: str | None
) -> None:
    guard, one = Skip(), torch.tensor(1.0)
    for _ in range(48):
        guard.settle(1.0, 1.0, False, 1.0)
    members = [torch.ones(2), torch.ones(2), torch.tensor([1.0, value])]
    assert guard.judge(*members).tolist() == [False, cause is not None]  # type: ignore[union-attr]
    assert guard.judge(one, one, torch.tensor(value)) is (cause is not None)
    guard.settle(1.0, 1.0, cause is not None, value)
    assert [name for name, count in guard.causes.items() if count] == ([cause] if cause else [])
    again = Skip()
    again.load_state_dict(guard.state_dict())
    assert again.judge(one, one, torch.tensor(9.0))


def test_a_model_without_buffers_has_no_limit_for_them() -> None:
    guard = steady(Skip())
    assert guard.buffers.limit == math.inf
    assert not guard.buffers.values


def test_members_are_held_against_the_same_limit() -> None:
    guard = steady(Skip())
    verdicts = guard.judge(torch.tensor([1.0, 9.0, 1.0]), torch.tensor([1.0, 1.0, 9.0]))
    assert isinstance(verdicts, torch.Tensor)
    assert verdicts.tolist() == [False, True, True]


def test_five_spikes_in_a_row_are_a_new_level_for_skip() -> None:
    guard = steady(Skip())
    for _ in range(5):
        assert spike(guard) is None
    assert guard.skipped == guard.causes[LOSS_SPIKE] == 5
    assert not guard.judge(torch.tensor(1e6), torch.tensor(1.0))
    steady(guard, 48, level=1e6)
    assert guard.judge(torch.tensor(1e8), torch.tensor(1.0))  # the new level has its own spikes


def test_a_step_that_is_not_finite_interrupts_the_five() -> None:
    guard = steady(Skip())
    for value in (1e6, 1e6, 1e6, 1e6, math.nan, 1e6, 1e6, 1e6, 1e6):
        assert spike(guard, value) is None
    assert guard.judge(torch.tensor(1e6), torch.tensor(1.0))  # the window is still the old one
    assert guard.consecutive == 9


def test_a_good_step_interrupts_the_five() -> None:
    guard = steady(Skip())
    for value in (1e6, 1e6, 1e6, 1e6, 1.0, 1e6):
        assert spike(guard, value) is None
    assert guard.judge(torch.tensor(1e6), torch.tensor(1.0))
    assert guard.consecutive == 1


def test_rewind_asks_to_go_back_before_five_spikes_become_a_level() -> None:
    guard = steady(Rewind())
    reasons = [spike(guard) for _ in range(5)]
    assert reasons[:4] == [None] * 4
    assert reasons[4] is not None
    assert guard.judge(torch.tensor(1e6), torch.tensor(1.0))  # until it does, it goes on refusing


def test_going_back_counts_and_starts_anew() -> None:
    guard = steady(Rewind())
    for _ in range(5):
        spike(guard)
    assert guard.rewind()
    assert (guard.rewound, guard.consecutive, guard.skipped) == (1, 0, 5)
    assert not guard.judge(torch.tensor(1e6), torch.tensor(1.0))  # the older weights, other values
    assert spike(guard, math.nan) is None


@pytest.mark.parametrize("recover_steps", [0, 1, 7])
def test_the_rate_is_lower_during_exactly_the_recovering_steps(recover_steps: int) -> None:
    guard = Rewind(backoff=0.25, recover_steps=recover_steps)
    assert guard.lr_factor == 1.0
    assert guard.rewind()
    factors = []
    for step in range(10):
        factors.append(guard.lr_factor)
        guard.settle(math.nan if step == 2 else 1.0, 1.0, step == 2)  # a refused step counts too
    assert factors == [0.25] * recover_steps + [1.0] * (10 - recover_steps)


def test_going_back_again_while_recovering_starts_the_recovery_anew() -> None:
    guard = Rewind(recover_steps=5)
    guard.rewind()
    steady(guard, 3)
    guard.rewind()
    steady(guard, 4)
    assert guard.lr_factor == 0.5
    steady(guard, 1)
    assert guard.lr_factor == 1.0


@pytest.mark.parametrize("most", [1, 3])
def test_rewind_gives_up_after_its_last(most: int) -> None:
    guard = Rewind(max_rewinds=most)
    assert [guard.rewind() for _ in range(most + 2)] == [True] * most + [False, False]
    assert guard.rewound == most


def test_rewind_restores_its_counters_in_the_middle_of_a_recovery() -> None:
    first, second = Rewind(recover_steps=4), Rewind(recover_steps=4)
    first.rewind()
    steady(first, 3)
    second.load_state_dict(first.state_dict())
    assert (second.rewound, second.lr_factor) == (1, 0.5)
    steady(second, 1)
    assert second.lr_factor == 1.0


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("every", 0),
        ("backoff", 0),
        ("backoff", 1.5),
        ("backoff", math.nan),
        ("recover_steps", -1),
        ("max_rewinds", 0),
        ("budget_mb", 0),
        ("spike_z", 0),
        ("window", 1),
    ],
)
def test_an_argument_of_rewind_out_of_range_is_refused_by_name(argument: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"^{argument} must be"):
        Rewind(**{argument: value})


def test_a_spike_that_stays_is_no_new_level_for_rewind_however_patient_it_is() -> None:
    guard = steady(Rewind(max_consecutive=10))
    reasons = [spike(guard) for _ in range(11)]
    assert reasons[:10] == [None] * 10
    assert reasons[10] is not None


def test_a_refused_step_counts_as_refused_where_the_host_sees_no_cause() -> None:
    guard = steady(Skip())
    guard.settle(1.0, 1.0, True)
    assert (guard.skipped, guard.consecutive, len(guard.losses.values)) == (1, 1, 48)

"""How long a run is, in steps and epochs, and how long a part of it."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.schedulers import Horizon

LIMIT = st.none() | st.integers(1, 9)


@settings(deadline=None, max_examples=50)
@given(batches=st.integers(1, 9), accumulate=st.integers(1, 5), epochs=LIMIT, steps=LIMIT)
def test_the_horizon_is_what_the_loop_will_do(
    batches: int, accumulate: int, epochs: int | None, steps: int | None
) -> None:
    if epochs is None and steps is None:
        return
    done = started = 0
    while (epochs is None or started < epochs) and (steps is None or done < steps):
        started += 1
        for _ in range(0, batches, accumulate):
            done += steps is None or done < steps
    horizon = Horizon.of(batches, accumulate, epochs, steps)
    assert (horizon.steps, horizon.epochs) == (done, started)
    assert horizon.per_epoch == math.ceil(batches / accumulate)
    assert (horizon.count("step"), horizon.count("epoch")) == (done, started)


@pytest.mark.parametrize(
    ("epochs", "steps", "name"),
    [
        (None, None, "max_epochs"),
        (0, None, "max_epochs"),
        (1.5, 3, "max_epochs"),
        (True, None, "max_epochs"),
        (None, 0, "max_steps"),
        (3, -1, "max_steps"),
    ],
)
def test_a_run_without_an_end_has_no_horizon(epochs: Any, steps: Any, name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be a whole number"):
        Horizon.of(10, 1, epochs, steps)


@settings(deadline=None, max_examples=100)
@given(
    per_epoch=st.integers(1, 7), cuts=st.lists(st.integers(1, 60), min_size=2, max_size=4, unique=True)
)
def test_a_part_has_the_epochs_that_its_steps_lie_in(per_epoch: int, cuts: set[int]) -> None:
    first, *_, last = sorted(cuts)
    whole = Horizon(last, math.ceil(last / per_epoch), per_epoch)
    part = whole.part(first, last)
    assert part.steps == last - first
    assert part.epochs == len({step // per_epoch for step in range(first, last)})
    assert whole.part(0, last) == whole

"""Figures as people read them."""

from __future__ import annotations

import math

import pytest

from trainer.wording import MISSING, spread


@pytest.mark.parametrize(
    ("mean", "error", "told"),
    [
        (17.1234, 0.0432, "17.123 ± 0.043"),
        (-0.00764, 0.048, "-0.008 ± 0.048"),
        (123.4, 12.3, "123 ± 12"),
        (1234.5, 120.0, "1234 ± 120"),
        (2.0, 0.0996, "2.000 ± 0.100"),
        (2.5, None, "2.500"),
        (2.5, 0.0, "2.500"),
        (2.5, 1e-9, "2.500"),
        (2.5, math.nan, "2.500"),
        (None, 0.1, MISSING),
        (math.inf, 0.1, MISSING),
    ],
)
def test_a_mean_is_told_to_the_second_digit_of_its_error(
    mean: float | None, error: float | None, told: str
) -> None:
    assert spread(mean, error) == told

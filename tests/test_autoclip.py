"""AutoClip: a percentile of the past, which the present is no part of."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from trainer.clipping import AutoClip


def coefficients(mode: AutoClip, norms: list[float]) -> list[float]:
    """One step per norm; 1 where nothing is to be multiplied."""
    found = []
    for norm in norms:
        coefficient = mode([], torch.tensor(norm, dtype=torch.float64)).coefficient
        assert coefficient is None or isinstance(coefficient, float)
        found.append(1.0 if coefficient is None else coefficient)
    return found


@pytest.mark.parametrize("percentile", [10.0, 50.0, 100.0])
def test_the_threshold_is_the_percentile_of_the_past_in_float64(percentile: float) -> None:
    norms = np.random.default_rng(0).lognormal(size=120)
    found = coefficients(AutoClip(percentile, window=50, warmup=5, max_norm=0.7), norms.tolist())
    for step, (norm, coefficient) in enumerate(zip(norms, found, strict=True)):
        limit = 0.7 if step < 5 else np.percentile(norms[max(0, step - 50) : step], percentile)
        assert coefficient == pytest.approx(min(1, limit / (norm + 1e-6)), rel=2e-6)


def test_a_huge_first_gradient_does_not_pass() -> None:
    # The public code puts the present norm into its own percentile: norms 1e6, 1, 1 are clipped at 1e6,
    # 1e5 + 0.9, 1.
    assert coefficients(AutoClip(), [1e6])[0] * 1e6 == pytest.approx(1.0, rel=1e-6)
    assert coefficients(AutoClip(warmup=1), [1.0, 1e6])[1] * 1e6 == pytest.approx(1.0, rel=1e-6)


def test_one_nan_is_forgotten() -> None:
    # The public code: after norms 1, 1, nan every gradient is NaN, since so is every percentile.
    after = coefficients(AutoClip(warmup=2), [1.0, 1.0, math.nan, math.inf, 0.0, 4.0, 1.0])
    assert after == [1.0] * 5 + [1 / (4 + 1e-6), 1.0]


def test_the_window_is_bounded_and_saved() -> None:
    # The public code keeps every norm of the run in a list, and has no state_dict.
    first, second = AutoClip(window=30), AutoClip(window=30)
    coefficients(first, np.linspace(1, 2, 200).tolist())
    assert first.state_dict()["norms"].shape == (30,)
    second.load_state_dict(first.state_dict())
    assert second.threshold(torch.tensor(1.0)) == first.threshold(torch.tensor(1.0)) > 1.8


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"percentile": 0}, "percentile must be a?.*> 0, got 0"),
        ({"percentile": 101}, "percentile must be <= 100, got 101"),
        ({"window": 10}, "window must be a whole number >= 25, got 10"),
        ({"warmup": 0}, "warmup must be a whole number >= 1, got 0"),
    ],
)
def test_an_argument_out_of_range_is_refused(bad: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        AutoClip(**bad)  # type: ignore[arg-type]

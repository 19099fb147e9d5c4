"""The window of norms: numpy's quantiles, bounded, each member on its own, no norm that misleads."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from trainer.clipping.window import NormWindow


def filled(norms: list[float], size: int = 8, on_host: bool = True) -> NormWindow:
    window = NormWindow(size)
    for norm in norms:
        value = norm if on_host else torch.tensor(norm, dtype=torch.float64)
        window.to(value)
        window.add(value)
    return window


@pytest.mark.parametrize("on_host", [True, False])
@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 30])
@pytest.mark.parametrize("percent", [1, 10, 50, 99.9, 100])
def test_a_quantile_is_numpys_over_the_latest(count: int, percent: float, on_host: bool) -> None:
    norms = np.random.default_rng(0).uniform(0.1, 2, count)
    expected = np.percentile(norms[-8:], percent)
    found = filled(norms.tolist(), on_host=on_host).quantile(percent / 100)
    assert float(found) == pytest.approx(expected, rel=1e-14)


def test_before_the_first_norm_there_is_no_limit() -> None:
    assert NormWindow(4).quantile(0.1) == math.inf
    assert float(filled([math.nan], on_host=False).quantile(0.1)) == math.inf


@pytest.mark.parametrize("on_host", [True, False])
def test_what_says_nothing_does_not_enter(on_host: bool) -> None:
    window = filled([1.0, math.nan, math.inf, 0.0, 1e200, 3.0], on_host=on_host)
    assert window.count == 2
    assert window.norms.tolist() == [1.0, 3.0] + [0.0] * 6


def test_members_that_have_seen_different_numbers_have_their_own_quantiles() -> None:
    norms = torch.rand(20, 3, dtype=torch.float64)
    norms[::2, 1] = math.nan
    norms[:, 2] = math.nan
    together = NormWindow(8)
    for step in norms:
        together.to(step)
        together.add(step)
    quantiles = together.quantile(0.3)
    for member in range(3):
        alone = filled(norms[:, member].tolist())
        assert quantiles[member] == alone.quantile(0.3)  # type: ignore[index]
        assert together.count[member] == alone.count  # type: ignore[index]


def test_a_state_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="must be 4, got 8"):
        NormWindow(4).load_state_dict(NormWindow(8).state_dict())

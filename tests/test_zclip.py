"""ZClip: the published formula, and that nothing blinds it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from trainer.clipping import ZClip


def after(mode: ZClip, norms: list[float]) -> list[float]:
    """The norm after clipping, one step per norm."""
    found = []
    for norm in norms:
        coefficient = mode([], torch.tensor(norm, dtype=torch.float64)).coefficient
        assert coefficient is None or isinstance(coefficient, float)
        found.append(norm if coefficient is None else norm * coefficient)
    return found


def steady(count: int = 60, spread: float = 0.1) -> list[float]:
    values = 0.5 * (1 + spread * np.random.default_rng(0).standard_normal(count))
    return [float(value) for value in values]


def published(norms: list[float], alpha: float, z_threshold: float, warmup: int) -> list[float]:
    """The formula as in the paper, where σ is not small; norms are clipped at 1 in the warm-up."""
    first = np.array(norms[:warmup])
    mean, variance = first.mean(), first.var()
    found = [min(norm, 1.0) for norm in norms[:warmup]]
    for norm in norms[warmup:]:
        z = (norm - mean) / math.sqrt(variance)
        n = mean + z_threshold**2 / z * math.sqrt(variance) if z > z_threshold else norm
        mean = alpha * mean + (1 - alpha) * n
        variance = alpha * variance + (1 - alpha) * (n - mean) ** 2
        found.append(n)
    return found


def test_it_is_the_published_formula_in_float64() -> None:
    norms = steady(200, spread=0.3)
    norms[50], norms[120], norms[121] = 3.0, 30.0, 2.0
    found = after(ZClip(alpha=0.9, warmup=20, z_threshold=2.0, min_sigma=1e-9), norms)
    expected = published(norms, 0.9, 2.0, 20)
    assert sum(a < b for a, b in zip(expected, norms, strict=True)) > 3
    assert found == pytest.approx(expected, rel=1e-5)  # c / (n + 1e-6)


def test_a_nan_does_not_blind_it() -> None:
    # The public code: after one NaN μ is NaN, no z exceeds anything, and a spike of 50 times the mean,
    # 25.0, comes through as 25.0; without the NaN it is clipped to 0.506.
    found = after(ZClip(), [*steady(), math.nan, math.inf, *steady(), 25.0])
    assert found[-1] == pytest.approx(0.5, rel=0.1)


def test_equal_norms_do_not_make_the_next_one_stand_out() -> None:
    # The public code: after 25 norms of 0.5 the variance is 0, and 0.5005, 0.1 % more, is clipped.
    assert after(ZClip(), [0.5] * 25 + [0.5005, 0.6])[-2:] == [0.5005, 0.6]


def test_a_huge_first_gradient_does_not_blind_it() -> None:
    # The public code: 1e6 in the warm-up makes μ 38801 at its end, and 25.0, 50 times the ordinary
    # norm, comes through as 25.0.
    assert after(ZClip(), [1e6, *steady(), 25.0])[-1] < 2.0


def test_a_warm_up_of_zeros_is_not_for_ever() -> None:
    # The public code: after 25 norms of 0 a norm of 0.5 is clipped to 0, a thousand times on end.
    assert after(ZClip(), [0.0] * 25 + [0.5] * 30)[-1] == 0.5


def test_a_new_level_is_learned() -> None:
    # With σ near 0, as after equal norms, c would stay at μ and μ where it is.
    found = after(ZClip(), [0.5] * 25 + [1.0] * 400)
    assert found[25] < 0.6
    assert found[-1] == 1.0


def test_the_state_holds_what_the_next_step_depends_on() -> None:
    # The public code has no state_dict: a resumed run warms up again.
    for cut in (3, 24, 25, 40):
        whole, first, second = ZClip(), ZClip(), ZClip()
        norms = [*steady(), 4.0, *steady()]
        after(first, norms[:cut])
        second.load_state_dict(first.state_dict())
        assert after(second, norms[cut:]) == after(whole, norms)[cut:]


@pytest.mark.parametrize(
    "bad", [{"alpha": 1.0}, {"z_threshold": 0}, {"warmup": 1}, {"min_sigma": 0}, {"max_norm": -1}]
)
def test_an_argument_out_of_range_is_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(bad))} must be"):
        ZClip(**bad)  # type: ignore[arg-type]

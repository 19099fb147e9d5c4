"""Stable division, deviation, normalisation, modulus: published values, properties, gradients."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from losses.numerics import modulus, stable_divide, stable_normalize, stable_std, widened

REAL = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
SMALLEST = 1e-45  # the least float32 above 0
EXTREMES = {
    "single entry": [3.0],
    "single zero": [0.0],
    "zeros": [0.0, 0.0, 0.0],
    "constant": [0.1] * 7,
    "huge constant": [1e30] * 5,
    "huge": [1e30, -1e30, 3e30],
    "nearly the largest": [1e38, -1e38, 0.0],
    "tiny": [1e-30, -2e-30, 0.0],
    "mixed": [1e-10, 1e10, 0.0, -1e-10],
}


def vector(values: list[float], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.tensor(values, dtype=dtype)


def test_division_has_its_published_value() -> None:
    assert round(stable_divide(torch.tensor(1e-8), torch.tensor(1e-10)).item(), 4) == 0.9901


def test_a_denominator_of_minus_epsilon_is_no_zero() -> None:
    """a + 1e-8 with a = −1e-8 is 0."""
    quotient = stable_divide(vector([1.0]), vector([-1e-8]))
    torch.testing.assert_close(quotient, vector([-5e7]))


@settings(deadline=None, max_examples=60)
@given(st.floats(-1e20, 1e20), st.floats(-1e20, 1e20))
def test_the_quotient_is_finite_keeps_its_sign_and_is_no_larger(a: float, d: float) -> None:
    numerator, denominator = vector([a], torch.float64), vector([d], torch.float64)
    quotient = stable_divide(numerator, denominator)
    assert quotient.isfinite()
    assert quotient == 0 or quotient.sign() == math.copysign(1, a) * (-1 if d < 0 else 1)
    assert d == 0 or quotient.abs() <= (numerator / denominator).abs()
    if abs(d) > 1:
        torch.testing.assert_close(quotient, numerator / denominator, rtol=1.1e-8, atol=0)


@pytest.mark.parametrize("dtype", REAL)
def test_nothing_over_nothing_is_nothing_in_every_format(dtype: torch.dtype) -> None:
    zero = vector([0.0], dtype)
    assert stable_divide(zero, zero) == 0
    assert stable_divide(zero, zero).dtype == torch.promote_types(dtype, torch.float32)


def test_normalisation_has_its_published_value() -> None:
    normal = stable_normalize(vector(EXTREMES["mixed"]))
    assert [round(value, 4) for value in normal.tolist()] == [-0.5, 1.5, -0.5, -0.5]
    torch.testing.assert_close(normal.mean(), torch.tensor(0.0), rtol=0, atol=1e-7)
    torch.testing.assert_close(normal.std(), torch.tensor(1.0))


def test_the_least_number_there_is_still_varies() -> None:
    normal = stable_normalize(vector([SMALLEST, 0.0, -SMALLEST]))
    torch.testing.assert_close(normal, vector([1.0, 0.0, -1.0]))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(-1, 1, width=16), min_size=2, max_size=9), st.integers(-200, 200))
def test_what_varies_has_mean_0_and_deviation_1_whatever_its_size(
    values: list[float], exponent: int
) -> None:
    x = vector(values, torch.float64) * 2.0**exponent
    normal = stable_normalize(x)
    assert abs(normal.mean()) < 1e-9
    if max(values) - min(values) > 1e-3 * max(map(abs, values)):
        assert abs(normal.std() - 1) < 1e-4
    else:
        assert normal.isfinite().all()


@pytest.mark.parametrize("kind", EXTREMES)
@pytest.mark.parametrize("function", [stable_normalize, stable_std], ids=["normalize", "std"])
def test_extremes_have_a_finite_value_and_gradient(kind: str, function: object) -> None:
    x = vector(EXTREMES[kind]).requires_grad_()
    value = function(x)  # type: ignore[operator]
    assert value.isfinite().all()
    (value * torch.arange(1.0, 1 + value.numel())).sum().backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("kind", ["single entry", "single zero", "zeros", "constant", "huge constant"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_does_not_vary_is_exactly_0(kind: str, dtype: torch.dtype) -> None:
    x = vector(EXTREMES[kind], dtype)
    assert (stable_normalize(x) == 0).all()
    assert stable_std(x) == 0


@pytest.mark.parametrize("dtype", REAL)
def test_the_deviation_is_torchs_own_in_every_format(dtype: torch.dtype) -> None:
    x = torch.randn(4, 6, 3, dtype=torch.float64).to(dtype)
    torch.testing.assert_close(stable_std(x), widened(x).std().reshape(1, 1, 1))
    torch.testing.assert_close(stable_std(x, (1, 2)), widened(x).std((1, 2), keepdim=True))


def test_an_axis_is_normalised_row_by_row() -> None:
    x = torch.randn(4, 6)
    rows = torch.stack([stable_normalize(row) for row in x])
    torch.testing.assert_close(stable_normalize(x, 1), rows)


def test_the_gradients_are_those_of_the_formulas() -> None:
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    d = (torch.rand(3, 5, dtype=torch.float64) - 0.5).requires_grad_()
    z = torch.randn(3, 5, dtype=torch.complex128, requires_grad=True)
    assert torch.autograd.gradcheck(stable_divide, (x, d))
    assert torch.autograd.gradcheck(lambda x: stable_normalize(x, 1), (x,))
    assert torch.autograd.gradcheck(lambda x: stable_normalize(1e20 * x), (x,))
    assert torch.autograd.gradcheck(lambda x: stable_std(x, 1), (x,))
    assert torch.autograd.gradcheck(modulus, (z,))


def test_the_modulus_is_right_at_every_size_and_has_gradient_0_at_0() -> None:
    z = torch.tensor([3 + 4j, 0, 3e30 + 4e30j, 3e-30 - 4e-30j]).requires_grad_()
    value = modulus(z)
    torch.testing.assert_close(value, torch.tensor([5.0, 0.0, 5e30, 5e-30]), rtol=1e-6, atol=0)
    value.sum().backward()
    expected = torch.tensor([0.6 + 0.8j, 0, 0.6 + 0.8j, 0.6 - 0.8j])
    torch.testing.assert_close(z.grad, expected)


@pytest.mark.parametrize("dtype", REAL)
def test_real_numbers_keep_their_sign(dtype: torch.dtype) -> None:
    x = vector([-2.0, 3.0], dtype)
    assert modulus(x).tolist() == [-2.0, 3.0]
    assert modulus(x).dtype == torch.promote_types(dtype, torch.float32)


def test_half_complex_is_widened() -> None:
    with pytest.warns(UserWarning, match="ComplexHalf"):
        z = torch.tensor([3 + 4j]).to(torch.complex32)
    assert modulus(z).tolist() == [5.0]

"""A formula in floats and the same in tensors agree: bit for bit, a root to its last place."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.clipping.scalars import Number, beside, larger, number, root, smaller, where

FINITE = st.floats(1e-100, 1e100)


@settings(deadline=None, max_examples=60)
@given(a=FINITE, b=FINITE)
def test_floats_and_tensors_agree(a: float, b: float) -> None:
    pairs: list[tuple[Number, Number]] = [
        (function(a, b), function(*(torch.tensor(n, dtype=torch.float64) for n in (a, b))))
        for function in (larger, smaller, lambda a, b: where(a < b, a / b, b / a))
    ]
    assert all(isinstance(float_, float) and float_ == tensor for float_, tensor in pairs)


@settings(deadline=None, max_examples=60)
@given(value=FINITE)
def test_roots_agree_but_for_the_last_place(value: float) -> None:
    tensor = root(torch.tensor(value, dtype=torch.float64))
    assert abs(float(tensor) - math.sqrt(value)) <= math.ulp(math.sqrt(value))


@pytest.mark.parametrize("kind", [float, lambda n: torch.tensor(n, dtype=torch.float64)])
def test_a_norm_that_is_no_number_is_not_chosen(kind: type) -> None:
    for function in (larger, smaller):
        assert function(kind(2.0), kind(math.nan)) == 2.0


def test_a_norm_is_a_float_where_the_host_knows_it() -> None:
    assert isinstance(number(torch.tensor(2.0)), float)
    many = number(torch.ones(3))
    assert isinstance(many, torch.Tensor)
    assert many.dtype == torch.float64
    assert isinstance(beside(torch.tensor(2.0), 1.0), float)
    assert torch.equal(torch.as_tensor(beside(2.0, many)), torch.tensor(2.0, dtype=torch.float64))

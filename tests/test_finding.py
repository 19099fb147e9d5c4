"""Findings say where, what and why, in a line and as plain values."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

from trainer.diagnostics import Check, Failure
from trainer.diagnostics.finding import first_difference, index_of, largest_difference

NAN, INF = math.nan, math.inf


def test_a_failure_is_a_line_with_name_index_both_values_and_cause() -> None:
    failure = Failure("0.weight", "1.5", "3", "a factor", (2, 0))
    assert str(failure) == "0.weight[2, 0]: 1.5, not 3; a factor"
    assert str(Failure("loss", "nan", "finite", "a root")) == "loss: nan, not finite; a root"


def test_a_check_says_its_verdict_and_is_plain_data() -> None:
    failed = Check("gradients", "4 tensors", (Failure("w", "1", "2", "why"),), INF, 1e-5, ("frozen: b",))
    assert not failed.passed
    assert str(failed).splitlines() == [
        "gradients: FAIL, worst inf (limit 1e-05)  4 tensors",
        "  w: 1, not 2; why",
        "  frozen: b",
    ]
    assert json.loads(json.dumps(failed.as_dict()))["worst"] is None
    assert str(Check("updates", skipped="no formula")) == "updates: not made  no formula"


@pytest.mark.parametrize("shape", [(), (7,), (3, 4), (2, 3, 4)])
def test_an_index_is_where_the_entry_is(shape: tuple[int, ...]) -> None:
    tensor = torch.arange(math.prod(shape)).reshape(shape)
    for place in range(tensor.numel()):
        assert tensor[index_of(tensor, place)] == place


@pytest.mark.parametrize(
    ("got", "expected", "found", "apart"),
    [
        ([1.0, NAN, INF], [1.0, NAN, INF], None, 0.0),
        ([1.0, 2.0], [1.0, 2.5], ((1,), "2.0", "2.5"), 0.5),
        ([1.0, NAN], [1.0, 2.5], ((1,), "nan", "2.5"), INF),
        ([NAN, 2.0], [NAN, 2.5], ((1,), "2.0", "2.5"), 0.5),
        ([], [], None, 0.0),
        ([True, False], [True, True], ((1,), "False", "True"), 1.0),
    ],
)
def test_two_tensors_differ_where_a_bit_does(
    got: list[float], expected: list[float], found: object, apart: float
) -> None:
    pair = torch.tensor(got), torch.tensor(expected)
    assert first_difference(*pair) == found
    assert largest_difference(*pair) == apart


def test_tensors_of_other_shapes_or_types_differ_as_a_whole() -> None:
    def found(tensor: Tensor) -> object:
        return first_difference(torch.zeros(2), tensor)

    assert found(torch.zeros(3)) == (None, "(2,) torch.float32", "(3,) torch.float32")
    assert found(torch.zeros(2).double()) == (None, "(2,) torch.float32", "(2,) torch.float64")
    assert largest_difference(torch.zeros(2), torch.zeros(3)) == INF

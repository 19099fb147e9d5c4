"""The seed problem: standard normal, independent, and of the seed alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from trainer.data.random import random_regression


def test_the_samples_are_as_many_and_as_wide_as_asked_for() -> None:
    data = random_regression(samples=70, features=4, targets=2, val_samples=9, batch_size=32)
    assert [tuple(t.shape) for t in (*data.train, *data.val)] == [(70, 4), (70, 2), (9, 4), (9, 2)]
    assert (data.input_shape, data.output_shape) == ((4,), (2,))
    assert data.batches_per_epoch == 3
    assert data.metrics == {}


def test_inputs_and_targets_are_standard_normal_and_independent() -> None:
    count = 20_000
    data = random_regression(samples=count, features=3, targets=2)
    columns = torch.cat(data.train, 1).double().T
    bound = 5 / math.sqrt(count)
    assert columns.mean(1).abs().max() < bound
    assert (columns.var(1) - 1).abs().max() < bound * math.sqrt(2)
    assert (torch.corrcoef(columns) - torch.eye(5, dtype=torch.float64)).abs().max() < bound
    # Kurtosis tells a normal distribution (3) from a uniform one (1.8).
    assert (columns.pow(4).mean(1) - 3).abs().max() < bound * math.sqrt(96)


def test_the_seed_alone_decides() -> None:
    torch.manual_seed(1)
    first = random_regression(seed=5)
    torch.manual_seed(2)
    second, other = random_regression(seed=5), random_regression(seed=6)
    draws = [(*data.train, *data.val) for data in (first, second, other)]
    for a, b, c in zip(*draws, strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


def test_validation_holds_other_samples_than_training() -> None:
    data = random_regression(samples=50, val_samples=50)
    assert not {tuple(x) for x in data.train[0].tolist()} & {tuple(x) for x in data.val[0].tolist()}


def test_validation_may_be_left_out() -> None:
    assert list(random_regression(val_samples=0).validation()) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("samples", 0),
        ("samples", 1.5),
        ("features", 0),
        ("targets", 0),
        ("targets", True),
        ("val_samples", -1),
        ("batch_size", 0),
        ("seed", -1),
        ("seed", None),
    ],
)
def test_a_count_out_of_range_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be a whole number"):
        random_regression(**{name: value})

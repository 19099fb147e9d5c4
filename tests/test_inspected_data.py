"""What the data report finds: planted outliers, bad values, classes, copies."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy import stats
from torch.utils.data import TensorDataset

from trainer.data.mapstyle import MapStyleData
from trainer.data.tensors import TensorData
from trainer.data.text import Windows
from trainer.diagnostics.data import class_balance, describe, duplicates, inspect_data, robust_z
from trainer.faults import NanBatch
from trainer.schedulers import Horizon


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_robust_z_is_the_distance_in_normal_consistent_deviations() -> None:
    values = normal(501, 3) * torch.tensor([1.0, 1e6, 1e-6]) + 5.0
    spread = torch.from_numpy(stats.median_abs_deviation(values.numpy(), scale="normal"))
    expected = (values - values.median(0).values) / spread
    torch.testing.assert_close(robust_z(values), expected, rtol=1e-4, atol=1e-9)


def test_an_outlier_does_not_hide_itself_or_others() -> None:
    values = normal(100, 1)
    values[3], values[8] = 1e9, 20.0
    assert robust_z(values)[[3, 8]].min() > 10
    assert robust_z(values)[[i for i in range(100) if i not in (3, 8)]].abs().max() < 6


def test_a_column_that_is_mostly_one_value_has_outliers_but_a_binary_one_has_none() -> None:
    mostly = torch.zeros(100, 1)
    mostly[0], mostly[1] = 0.1, 50.0
    assert robust_z(mostly)[1] > 6 > robust_z(mostly)[0]
    binary = torch.zeros(100, 1)
    binary[0] = 1.0
    assert robust_z(binary).abs().max() == 0
    assert robust_z(torch.ones(5, 2)).abs().max() == 0


@pytest.mark.parametrize("shape", [(200,), (200, 4), (200, 2, 6, 6)])
def test_planted_outliers_and_bad_values_are_named_by_sample(shape: tuple[int, ...]) -> None:
    samples = normal(*shape)
    samples[17] *= 1e4
    samples[42].reshape(-1)[0] = torch.nan
    samples[77].reshape(-1)[0] = -torch.inf
    found = describe(samples, "x")
    assert found.not_finite == [42, 77]
    assert [sample for sample, _ in found.outliers] == [17]
    finite = samples[samples.isfinite()]
    assert (found.low, found.high) == (finite.min().item(), finite.max().item())
    assert found.mean == pytest.approx(finite.mean().item())


def test_nothing_finite_has_no_range() -> None:
    found = describe(torch.full((3, 2), torch.nan))
    assert (found.low, found.high, found.mean, found.std) == (None,) * 4
    assert found.not_finite == [0, 1, 2]


def test_copies_are_found_bit_for_bit() -> None:
    first, second = normal(50, 3), normal(20, 3) + 9
    second[4], second[11] = first[30], first[2]
    assert duplicates(first, second) == [(30, 4), (2, 11)]
    assert duplicates(first, first) == [(i, i) for i in range(50)]


def test_a_sample_in_both_splits_keeps_its_numbers_in_each() -> None:
    x, y = normal(40, 2), torch.arange(40) % 4
    x[9] = x[5]
    data = TensorData((x[:30], y[:30]), (torch.cat([x[30:], x[7:8]]), y[:11]), batch_size=4)
    report = inspect_data(data)
    assert report.shared == [(7, 10)]
    assert report.repeated == {"train": 1, "val": 0}
    assert report.balance == {"train": class_balance(y[:30]), "val": class_balance(y[:11])}
    assert report.looked_at == {"train": (30, 30), "val": (11, 11)}
    assert [one.name for one in report.tensors][:2] == ["train inputs", "train targets"]


def test_of_many_samples_some_are_looked_at_under_their_own_numbers() -> None:
    x = normal(100, 2)
    x[90] = 1e5
    report = inspect_data(TensorData((x, x), (x[:0], x[:0]), batch_size=10), most=10)
    assert report.looked_at == {"train": (10, 100)}
    assert report.tensors[0].outliers[0][0] == 90


def variants() -> dict[str, Any]:
    x, y = normal(20, 2).float(), torch.arange(20) % 3
    dataset, held_out = TensorDataset(x, y), TensorDataset(x[:5], y[:5])
    kept = TensorData((x, (y, y > 0)), (x[:4], (y[:4], y[:4] > 0)), batch_size=5)
    return {
        "dataset": MapStyleData(dataset, held_out, batch_size=4),
        "several targets": kept,
        "spoiled": NanBatch().data(kept, Horizon(4, 1, 4)),
        "tokens": Windows(torch.arange(200), 200, 60, length=10, batch_size=4),
        "complex": TensorData((x.to(torch.complex64), x), (x[:0], x[:0]), batch_size=5),
    }


@pytest.mark.parametrize("kind", variants())
def test_every_kind_of_data_is_looked_through(kind: str) -> None:
    report = inspect_data(variants()[kind])
    expected = {"dataset": 20, "several targets": 20, "spoiled": 20, "tokens": 13, "complex": 20}
    assert report.looked_at["train"] == (expected[kind], expected[kind])
    assert all(not one.not_finite for one in report.tensors)
    assert len(report.shared) == {"dataset": 5, "several targets": 4, "spoiled": 4}.get(kind, 0)

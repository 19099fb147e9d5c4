"""Arrays of your own: served as they are in the file, pixels scaled, labels checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainer.data.arrays import npz
from trainer.data.tensors import TensorData

RNG = np.random.default_rng(0)


def saved(folder: Path, **arrays: Any) -> str:
    np.savez(folder / "arrays.npz", **arrays)
    return str(folder / "arrays.npz")


def whole(data: TensorData) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets of both parts, in the order of the first number of an input."""
    x, y = (torch.cat(parts) for parts in zip(data.train, data.val, strict=True))
    order = x.flatten(1)[:, 0].argsort()
    return x[order], y[order]


def test_every_sample_is_in_one_part_once_and_as_it_was(tmp_path: Path) -> None:
    x, y = RNG.normal(size=(20, 3)), RNG.normal(size=(20, 2))
    data = npz(saved(tmp_path, x=x, y=y))
    assert (len(data.train[0]), len(data.val[0])) == (16, 4)
    order = x[:, 0].argsort()
    for found, known in zip(whole(data), (x[order], y[order]), strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, torch.tensor(known).float(), rtol=0, atol=0)
    assert data.provenance["normalisation"] == {"inputs": "none"}


@pytest.mark.parametrize(
    ("dtype", "kept", "scale"),
    [
        ("float64", torch.float32, 1),
        ("float16", torch.float32, 1),
        ("uint8", torch.float32, 255),
        ("int32", torch.int64, 1),
        ("uint16", torch.int64, 1),
        ("complex128", torch.complex64, 1),
    ],
)
def test_only_bytes_are_scaled_and_other_whole_numbers_stay(
    dtype: str, kept: torch.dtype, scale: int, tmp_path: Path
) -> None:
    x = np.arange(12).astype(dtype).reshape(6, 2)
    data = npz(saved(tmp_path, x=x, y=np.arange(6.0)), val_fraction=0.5)
    found = torch.cat([data.train[0], data.val[0]])
    assert found.dtype == kept
    assert sorted((found.real.double() * scale).round().flatten().tolist()) == [*range(12)]


def test_validation_arrays_may_be_named(tmp_path: Path) -> None:
    path = saved(tmp_path, a=RNG.random((5, 2)), b=RNG.random(5), c=np.ones((3, 2)), d=np.zeros(3))
    data = npz(path, x="a", y="b", x_val="c", y_val="d")
    assert len(data.train[0]) == 5
    assert torch.equal(data.val[0], torch.ones(3, 2))
    assert data.provenance["split"] == "c and d in the file"


@pytest.mark.parametrize(("classes", "count"), [(None, 3), (7, 7)])
def test_labels_are_counted_unless_it_is_said(classes: int | None, count: int, tmp_path: Path) -> None:
    path = saved(tmp_path, x=RNG.random((9, 2)), y=np.arange(9, dtype=np.uint8) % 3)
    data = npz(path, task="classification", classes=classes)
    assert data.output_shape == (count,)
    assert data.train[1].dtype == torch.int64  # bytes are pixels as inputs, but not as labels
    assert sorted(torch.cat([data.train[1], data.val[1]]).tolist()) == sorted([0, 1, 2] * 3)


def test_a_label_for_each_place_of_a_sample_has_its_own_logits(tmp_path: Path) -> None:
    path = saved(tmp_path, x=RNG.random((6, 1, 4, 4)), y=RNG.integers(0, 5, (6, 4, 4)).clip(4))
    data = npz(path, task="classification")
    assert data.output_shape == (5, 4, 4)
    labels = data.val[1]
    logits = torch.nn.functional.one_hot(labels, 5).movedim(-1, 1).float()
    assert data.metrics["accuracy"].function(logits, labels).tolist() == [1.0] * len(labels)


@pytest.mark.parametrize(("shape", "metrics"), [((), 2), ((2,), 2), ((2, 2), 1)])
def test_regression_is_judged_in_the_units_of_the_file(
    shape: tuple[int, ...], metrics: int, tmp_path: Path
) -> None:
    data = npz(saved(tmp_path, x=RNG.random((12, 2)), y=100 * RNG.random((12, *shape))))
    targets = data.val[1]
    assert len(data.metrics) == metrics
    assert data.metrics["mae"].function(targets + 3, targets).tolist() == pytest.approx([3.0] * 2)

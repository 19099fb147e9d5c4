"""Photographs to denoise: patches that share no pixel between the parts; fresh and fixed noise."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_sample_images
from torch import Tensor
from torch.nn.functional import unfold

from benchmarks.photos import best, decibels, gaussian, median
from trainer.data.photos import SIZE, patches, photos
from trainer.data.tensors import TensorData


@pytest.fixture(scope="module")
def data() -> TensorData:
    return photos(samples=300)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.tensor(np.stack(load_sample_images().images)).permute(0, 3, 1, 2) / 255


def places(images: Tensor, patch: Tensor) -> list[tuple[int, int, int]]:
    """(photo, top, left) of every place where a patch lies."""
    rows = (images[:, :, : -SIZE + 1, : -SIZE + 1] == patch[None, :, :1, :1]).all(1).nonzero()
    found = [(int(p), int(y), int(x)) for p, y, x in rows]
    return [
        (p, y, x) for p, y, x in found if torch.equal(images[p, :, y : y + SIZE, x : x + SIZE], patch)
    ]


def test_a_training_patch_shares_no_pixel_with_a_strip_that_is_held_out(images: Tensor) -> None:
    train, _, _ = patches(60)
    for patch in train:
        found = places(images, patch)
        assert found
        columns = {column for _, _, x in found for column in range(x, x + SIZE)}
        assert not {column // SIZE % 5 for column in columns} & {4}


def test_training_patches_lie_all_over_what_is_not_held_out(images: Tensor) -> None:
    train, _, _ = patches(150)
    corners = {(p, x // SIZE) for patch in train for p, _, x in places(images, patch)}
    # A patch that begins in the last strip before a held-out one can only begin at its left edge.
    between = {(photo, strip) for photo in (0, 1) for strip in range(20) if strip % 5 < 3}
    assert {(photo, strip) for photo, strip in corners if strip % 5 < 3} == between
    assert {strip % 5 for _, strip in corners} <= {0, 1, 2, 3}


def test_validation_patches_are_the_held_out_strips_each_pixel_once(images: Tensor) -> None:
    _, val, _ = patches(1)
    strips = torch.cat([images[..., x : x + SIZE] for x in (128, 288, 448, 608)], 3)[:, :, :416]
    tiles = unfold(strips, SIZE, stride=SIZE).transpose(1, 2).reshape(-1, 3, SIZE, SIZE)
    assert sorted(tile.numpy().tobytes() for tile in tiles) == sorted(v.numpy().tobytes() for v in val)
    assert len(val) == 104


def test_patches_and_validation_noise_are_the_same_for_every_seed(data: TensorData) -> None:
    other = photos(samples=300, seed=7, batch_size=5)
    assert torch.equal(data.train[0], other.train[0])
    assert all(torch.equal(a, b) for a, b in zip(data.val, other.val, strict=True))
    assert not torch.equal(next(data.batches(0))[1][:5], next(other.batches(0))[1])


def test_noise_is_the_formula_and_fresh_in_every_epoch(data: TensorData) -> None:
    noise = []
    for epoch in (0, 1):
        inputs, targets = (torch.cat(parts) for parts in zip(*data.batches(epoch), strict=True))
        assert (inputs.min(), inputs.max()) == (0, 1)
        grey = (targets > 0.49) & (targets < 0.51)  # five standard deviations from either end
        values = ((inputs - targets) / 0.1)[grey].double()
        assert values.mean().abs() < 5 / math.sqrt(len(values))
        assert (values.var() - 1).abs() < 5 * math.sqrt(2 / len(values))
        noise.append(values)
    assert not torch.equal(noise[0][:50], noise[1][:50])


def test_the_metrics_are_decibels_of_the_patches_and_of_all_pixels(data: TensorData) -> None:
    noisy, clean = data.val
    values = {name: metric.function(noisy, clean).mean() for name, metric in data.metrics.items()}
    assert [metric.higher_is_better for metric in data.metrics.values()] == [True, False]
    mean, together = decibels(noisy, clean)
    assert mean == pytest.approx(values["psnr"].item(), abs=1e-4) == pytest.approx(21.1, abs=0.3)
    assert together == pytest.approx(-10 * values["mse"].log10().item(), abs=1e-4)


def test_the_filters_are_tuned_where_they_are_measured(data: TensorData) -> None:
    noisy, clean = (tensor[:12] for tensor in data.val)
    before = decibels(noisy, clean)
    for restore, widths in ((gaussian, (0.01, 0.7, 1.0)), (median, (1, 3))):
        for (value, width), unfiltered in zip(best(restore, widths, noisy, clean), before, strict=True):
            assert width > widths[0]  # which does nothing
            assert value > unfiltered + 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("sigma", -0.1), ("sigma", math.nan), ("samples", 0), ("samples", 1.5), ("batch_size", 0)],
)
def test_a_setting_out_of_range_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be "):
        photos(**{name: value})

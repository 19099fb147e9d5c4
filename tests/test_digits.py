"""Digits: one split for every seed; fresh noise in training, fixed noise in validation; labels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from trainer.data.digits import digits, digits_denoise
from trainer.data.tensors import TensorData


def whole(data: TensorData, epoch: int = 0) -> tuple[Tensor, Tensor]:
    inputs, targets = (torch.cat(parts) for parts in zip(*data.batches(epoch), strict=True))
    return inputs, targets


def rows(images: Tensor) -> list[bytes]:
    return sorted((16 * image).to(torch.uint8).numpy().tobytes() for image in images)


@pytest.fixture(scope="module")
def data() -> TensorData:
    return digits_denoise()


def test_every_digit_is_in_one_part_once(data: TensorData) -> None:
    assert (len(data.train[1]), len(data.val[1])) == (1438, 359)
    together = rows(torch.cat([data.train[1], data.val[1]]))
    assert together == sorted(i.astype(np.uint8).tobytes() for i in load_digits().images)
    assert not set(rows(data.train[1])) & set(rows(data.val[1]))


def test_images_are_one_channel_between_black_and_white(data: TensorData) -> None:
    assert data.input_shape == data.output_shape == (1, 8, 8)
    for inputs, targets in (whole(data), data.val):
        for images in (inputs, targets):
            assert images.dtype == torch.float32
            assert (images.min().item(), images.max().item()) == (0.0, 1.0)


def test_split_and_validation_noise_are_the_same_for_every_seed(data: TensorData) -> None:
    other = digits_denoise(seed=7, batch_size=5)
    assert all(torch.equal(a, b) for a, b in zip(data.val, other.val, strict=True))
    assert torch.equal(data.train[1], other.train[1])
    assert not torch.equal(whole(data)[1], whole(other)[1])


def residuals(data: TensorData, epoch: int) -> list[bytes]:
    inputs, targets = whole(data, epoch)
    order = targets.flatten(1).numpy()
    ranks = np.lexsort(order.T)
    return [(inputs - targets)[i].numpy().tobytes() for i in ranks]


def test_training_noise_is_fresh_in_every_epoch_and_the_same_when_asked_again(
    data: TensorData,
) -> None:
    assert residuals(data, 3) == residuals(digits_denoise(), 3)
    noise = [residuals(data, epoch) for epoch in (0, 1)] + [residuals(digits_denoise(seed=1), 0)]
    for a in range(3):
        for b in range(a):
            assert not any(x == y for x, y in zip(noise[a], noise[b], strict=True))


def test_noise_is_the_formula_before_it_is_cut_off() -> None:
    weak, strong = (digits_denoise(sigma=sigma).val for sigma in (0.1, 0.3))
    clean = weak[1]
    inside = (strong[0] > 0) & (strong[0] < 1) & (weak[0] > 0) & (weak[0] < 1)
    normal = [((x - clean) / sigma)[inside] for x, sigma in ((weak[0], 0.1), (strong[0], 0.3))]
    torch.testing.assert_close(*normal, rtol=1e-4, atol=1e-5)
    # Pixels in the middle of the scale are cut off at five standard deviations, that is never.
    grey = (clean > 0.4) & (clean < 0.6)
    noise = ((digits_denoise(sigma=0.08).val[0] - clean) / 0.08)[grey].double()
    bound = 5 / math.sqrt(len(noise))
    assert noise.mean().abs() < bound
    assert (noise.var() - 1).abs() < bound * math.sqrt(2)


@pytest.mark.parametrize("part", ["train", "val"])
def test_the_noisy_images_have_about_13_decibels(data: TensorData, part: str) -> None:
    inputs, targets = whole(data) if part == "train" else data.val
    psnr = data.metrics["psnr"]
    assert psnr.higher_is_better
    assert psnr.function(inputs, targets).mean().item() == pytest.approx(13.0, abs=0.5)


def test_without_noise_inputs_are_targets() -> None:
    inputs, targets = whole(digits_denoise(sigma=0))
    assert torch.equal(inputs, targets)


@pytest.mark.parametrize(("fraction", "held_out"), [(1e-9, 1), (0.5, 898), (1 - 1e-9, 1796)])
def test_either_part_has_at_least_one_image(fraction: float, held_out: int) -> None:
    assert len(digits_denoise(val_fraction=fraction).val[0]) == held_out


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sigma", -0.1),
        ("sigma", math.nan),
        ("sigma", "0.3"),
        ("val_fraction", 0),
        ("val_fraction", 1),
        ("val_fraction", None),
        ("batch_size", 0),
        ("seed", -1),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be "):
        digits_denoise(**{name: value})


def test_every_digit_has_its_label_and_is_in_one_part_once() -> None:
    data = digits()
    assert (data.input_shape, data.output_shape) == ((1, 8, 8), (10,))
    images, labels = (torch.cat(parts) for parts in zip(data.train, data.val, strict=True))
    assert labels.dtype == torch.int64
    known = load_digits()
    pairs = [(16 * image).byte().numpy().tobytes() for image in images]
    expected = [image.astype(np.uint8).tobytes() for image in known.images]
    assert sorted(zip(pairs, labels.tolist(), strict=True)) == sorted(
        zip(expected, known.target.tolist(), strict=True)
    )


def test_both_tasks_hold_out_the_same_images(data: TensorData) -> None:
    classified = digits(seed=3)
    assert torch.equal(classified.val[0], data.val[1])
    assert torch.equal(classified.train[0], data.train[1])


def test_labels_follow_their_images_into_the_batches() -> None:
    data = digits(batch_size=100)
    labels = {image.numpy().tobytes(): int(y) for image, y in zip(*data.train, strict=True)}
    for images, found in data.batches(4):
        assert [labels[image.numpy().tobytes()] for image in images] == found.tolist()


def test_accuracy_is_what_the_digits_are_judged_by() -> None:
    data = digits()
    metric = data.metrics["accuracy"]
    assert metric.higher_is_better
    logits = torch.nn.functional.one_hot(data.val[1], 10).float()
    assert metric.function(logits, data.val[1]).mean() == 1
    assert metric.function(-logits, data.val[1]).mean() == 0

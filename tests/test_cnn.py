"""The convolutional network: any size of image, what a block is, and its refusals."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch import nn

from models.cnn import CNN


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (7, 5), (1, 30), (33, 2)])
@pytest.mark.parametrize("output_shape", [(10,), (), (2, 3)])
def test_takes_images_of_any_size(size: tuple[int, int], output_shape: tuple[int, ...]) -> None:
    model = CNN((3, *size), output_shape, channels=2)
    assert model(torch.randn(5, 3, *size)).shape == (5, *output_shape)


def test_one_model_takes_images_of_another_size_than_it_was_built_for() -> None:
    model = CNN((1, 8, 8), (10,), channels=2)
    assert model(torch.randn(2, 1, 13, 40)).shape == (2, 10)


@pytest.mark.parametrize(("size", "left"), [((8, 8), (1, 1)), ((9, 20), (2, 3)), ((1, 1), (1, 1))])
def test_each_block_halves_the_image_rounding_up(size: tuple[int, int], left: tuple[int, int]) -> None:
    model = CNN((1, *size), (10,), channels=4, depth=3)
    assert model.features(torch.randn(2, 1, *size)).shape == (2, 16, *left)


def test_a_block_is_convolution_norm_activation_dropout_pool() -> None:
    model = CNN((1, 8, 8), (10,), depth=2, activation="gelu", norm="group", dropout=0.2)
    block = [nn.Conv2d, nn.GroupNorm, nn.GELU, nn.Dropout, nn.MaxPool2d]
    assert [type(layer) for layer in model.features] == 2 * block
    assert model.features[0].bias is None


def test_selu_brings_its_init_and_alpha_dropout() -> None:
    torch.manual_seed(0)
    model = CNN((1, 8, 8), (10,), channels=32, depth=2, activation="selu", norm="none", dropout=0.1)
    convolution = model.features[4]
    assert convolution.weight.std().item() == pytest.approx((32 * 9) ** -0.5, rel=0.02)
    assert not convolution.bias.any()
    assert isinstance(model.features[2], nn.AlphaDropout)


def test_a_shift_by_the_pooled_grid_does_not_change_the_answer() -> None:
    """Inside a dark border: convolution and pooling move along, and the mean forgets the place."""
    torch.manual_seed(0)
    model = CNN((1, 32, 32), (10,), channels=4, depth=2, norm="none").double().eval()
    for layer in model.features:
        if isinstance(layer, nn.Conv2d):
            nn.init.zeros_(layer.bias)  # so that dark stays 0
    image = torch.zeros(1, 1, 32, 32, dtype=torch.float64)
    image[..., 8:16, 8:16] = torch.randn(8, 8, dtype=torch.float64)
    moved = image.roll((4, 8), (2, 3))
    torch.testing.assert_close(model(moved), model(image))
    assert (model(image.roll(1, 2)) - model(image)).abs().max() > 1e-6


@pytest.mark.parametrize("shape", [(10,), (8, 8), (1, 8, 8, 8), (0, 8, 8), "188", 8])
def test_refuses_an_input_that_is_no_image(shape: Any) -> None:
    line = f"input_shape must be (channels, height, width), got {shape!r}; use model=mlp for vectors"
    with pytest.raises(ValueError, match=f"^{re.escape(line)}"):
        CNN(shape, (10,))


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("channels", 0),
        ("depth", 0),
        ("depth", True),
        ("activation", "rleu"),
        ("norm", "layer"),
        ("dropout", 1.0),
        ("dropout", -0.1),
    ],
)
def test_refuses_a_bad_knob_by_name(name: str, bad: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{name} must be .*, got {bad!r}"):
        CNN((1, 8, 8), (10,), **{name: bad})

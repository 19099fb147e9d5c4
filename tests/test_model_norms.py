"""Normalizations: what each makes zero and one, over which axes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.norms import IMAGE, TEXT, VECTOR, Kinds, norm_layers

CASES = [
    (IMAGE, "batch", (6, 4, 5, 3), (0, 2, 3)),
    (VECTOR, "batch", (6, 4), (0,)),
    (VECTOR, "layer", (6, 4), (1,)),
    (TEXT, "layer", (2, 3, 4), (2,)),
]


def shifted(*shape: int) -> Tensor:
    torch.manual_seed(0)
    return 100 * torch.randn(shape, dtype=torch.float64) + 30


@pytest.mark.parametrize(("kinds", "name", "shape", "axes"), CASES)
def test_mean_is_zero_and_variance_one_over_its_axes(
    kinds: Kinds, name: str, shape: tuple[int, ...], axes: tuple[int, ...]
) -> None:
    (layer,) = norm_layers(kinds, name, 4)
    out = layer.double()(shifted(*shape))
    assert out.mean(axes).abs().max() < 1e-6
    assert (out.var(axes, correction=0) - 1).abs().max() < 1e-4


@pytest.mark.parametrize(("channels", "groups"), [(16, 8), (12, 4), (6, 2), (5, 1), (1, 1)])
def test_groups_are_the_largest_number_of_them_that_fits(channels: int, groups: int) -> None:
    (layer,) = norm_layers(IMAGE, "group", channels)
    out = layer.double()(shifted(3, channels, 8, 4)).unflatten(1, (groups, -1))
    assert out.mean((2, 3, 4)).abs().max() < 1e-6
    assert (out.var((2, 3, 4), correction=0) - 1).abs().max() < 1e-4


def test_rms_sets_the_mean_square_alone_to_one() -> None:
    (layer,) = norm_layers(TEXT, "rms", 4)
    x = shifted(2, 3, 4)
    out = layer.double()(x)
    torch.testing.assert_close(out, x / x.square().mean(-1, keepdim=True).sqrt())


@pytest.mark.parametrize("kinds", [IMAGE, VECTOR, TEXT])
def test_none_is_no_module(kinds: Kinds) -> None:
    assert norm_layers(kinds, "none", 4) == []

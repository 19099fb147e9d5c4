"""The U-Net: shapes, what reaches what, and its refusals."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.nn.functional import avg_pool2d, interpolate

from models.unet import UNet


@pytest.mark.parametrize(
    ("input_shape", "output_shape", "depth"),
    [
        ((1, 8, 8), (1, 8, 8), 2),
        ((3, 8, 24), (2, 8, 24), 3),
        ((2, 7, 5), (4, 7, 5), 0),
        ([1, 6, 10], [1, 6, 10], 1),
    ],
)
def test_keeps_height_and_width_and_sets_channels(input_shape, output_shape, depth):
    model = UNet(input_shape, output_shape, channels=3, depth=depth)
    assert model(torch.randn(2, *input_shape)).shape == (2, *output_shape)


def test_depth_three_reaches_a_single_pixel_on_eight_by_eight():
    model = UNet((1, 8, 8), (1, 8, 8), channels=2, depth=3)
    shapes = []
    model.encoder[-1].register_forward_hook(lambda *call: shapes.append(tuple(call[2].shape)))
    model(torch.randn(5, 1, 8, 8))
    assert shapes == [(5, 16, 1, 1)]


@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_every_parameter_gets_a_gradient(depth):
    torch.manual_seed(0)
    model = UNet((1, 8, 8), (2, 8, 8), channels=4, depth=depth)
    model(torch.randn(16, 1, 8, 8)).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in model.parameters())


def test_skip_connection_of_every_level_carries_signal():
    torch.manual_seed(0)
    model = UNet((1, 8, 8), (1, 8, 8), channels=4, depth=2).eval()
    x = torch.randn(2, 1, 8, 8)
    baseline = model(x)
    for block, skipped in zip(model.decoder, (8, 4), strict=True):
        first = block[0]
        kept = first.weight.detach().clone()
        assert first.weight.shape[1] == 3 * skipped  # skipped features, then those from below
        with torch.no_grad():
            first.weight[:, :skipped] = 0
            assert not torch.allclose(model(x), baseline)
            first.weight.copy_(kept)


def test_bottleneck_lets_one_corner_see_the_other():
    torch.manual_seed(0)
    x = torch.randn(1, 1, 32, 32, requires_grad=True)
    reach = []
    for depth in (0, 3):
        UNet((1, 32, 32), (1, 32, 32), channels=4, depth=depth).eval()(x)[0, 0, 0, 0].backward()
        reach.append(int((x.grad[0, 0] != 0).any(0).nonzero().max()))
        x.grad = None
    assert reach[0] == 2  # two 3x3 convolutions
    assert reach[1] > 16


def test_can_overfit_one_batch():
    torch.manual_seed(0)
    x = torch.rand(2, 1, 4, 4)
    model = UNet((1, 4, 4), (1, 4, 4), channels=8, depth=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = nn.functional.mse_loss(model(x), x.flip(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 5


@pytest.mark.parametrize("value", [0, -1, 16.0, True, "16", None])
def test_refuses_bad_channels_in_one_line(value):
    line = f"channels must be a whole number >= 1, got {value!r}; the default is 16"
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        UNet((1, 8, 8), (1, 8, 8), channels=value)


@pytest.mark.parametrize("value", [-1, 2.0, True, "2", None])
def test_refuses_bad_depth_in_one_line(value):
    line = f"depth must be a whole number >= 0, got {value!r}; the default is 2"
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        UNet((1, 8, 8), (1, 8, 8), depth=value)


def test_indivisible_image_names_the_depth_that_works():
    line = (
        "input_shape must have height and width divisible by 8, as depth=3 halves them 3 times, "
        "got (1, 28, 30); use model.depth=1"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(line)}$"):
        UNet((1, 28, 30), (1, 28, 30), depth=3)


@pytest.mark.parametrize(("side", "deepest"), [(7, 0), (6, 1), (28, 2), (40, 3)])
def test_the_depth_it_advises_is_accepted_and_is_the_deepest(side, deepest):
    shape = (1, side, side)
    with pytest.raises(ValueError, match=rf"; use model\.depth={deepest}$"):
        UNet(shape, shape, channels=1, depth=deepest + 1)
    UNet(shape, shape, channels=1, depth=deepest)


@pytest.mark.parametrize("name", ["input_shape", "output_shape"])
@pytest.mark.parametrize("shape", [(10,), (1, 8), (1, 8.0, 8), (0, 8, 8), (True, 8, 8), "188", 8])
def test_refuses_a_shape_that_is_no_image(name, shape):
    shapes = {"input_shape": (1, 8, 8), "output_shape": (1, 8, 8), name: shape}
    with pytest.raises(ValueError, match=rf"^{name} must be \(channels, height, width\), got "):
        UNet(**shapes)


def test_refuses_an_output_of_another_size():
    with pytest.raises(ValueError, match=r"^output_shape must be \(channels, 8, 4\), .*got \(1, 8, 8\)"):
        UNet((1, 8, 4), (1, 8, 8))


def plain_block(fan_in, fan_out):
    convolutions = [nn.Conv2d(n, fan_out, 3, padding=1, bias=False) for n in (fan_in, fan_out)]
    first, second = ([c, nn.BatchNorm2d(fan_out), nn.ReLU()] for c in convolutions)
    return nn.Sequential(*first, *second)


def test_the_default_draws_and_computes_what_plain_layers_do_to_the_bit():
    torch.manual_seed(0)
    fans = [(1, 16), (16, 32), (32, 64), (96, 32), (48, 16)]
    plain = nn.ModuleList([*(plain_block(*fan) for fan in fans), nn.Conv2d(16, 1, 1)])
    torch.manual_seed(0)
    model = UNet((1, 8, 8), (1, 8, 8))
    names = [f"encoder.{i}" for i in range(3)] + [f"decoder.{i}" for i in range(2)] + ["head"]
    keys = [f"{names[int(key[0])]}{key[1:]}" for key in plain.state_dict()]
    assert keys == list(model.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), model.parameters(), strict=True))
    x = torch.randn(3, 1, 8, 8)
    top = plain[0](x)
    middle = plain[1](avg_pool2d(top, 2))
    lowest = plain[2](avg_pool2d(middle, 2))
    middle = plain[3](torch.cat([middle, interpolate(lowest, scale_factor=2.0)], 1))
    top = plain[4](torch.cat([top, interpolate(middle, scale_factor=2.0)], 1))
    assert torch.equal(plain[5](top), model(x))


@pytest.mark.parametrize("depth", [0, 2])
@pytest.mark.parametrize(("activation", "kind"), [("silu", nn.Dropout), ("selu", nn.AlphaDropout)])
def test_dropout_is_at_the_end_of_the_way_down_alone(depth, activation, kind):
    model = UNet((1, 8, 8), (1, 8, 8), depth=depth, activation=activation, dropout=0.3)
    dropped = [name for name, module in model.named_modules() if isinstance(module, kind)]
    assert dropped == [f"encoder.{depth}.6"]
    assert model.encoder[-1][6].p == 0.3


@pytest.mark.parametrize(("norm", "kind"), [("batch", nn.BatchNorm2d), ("group", nn.GroupNorm)])
def test_every_convolution_is_followed_by_the_norm_or_has_a_bias(norm, kind):
    model = UNet((1, 8, 8), (1, 8, 8), channels=4, norm=norm)
    assert sum(isinstance(module, kind) for module in model.modules()) == 10
    assert [name for name, _ in model.named_parameters() if name.endswith("0.bias")] == []
    model = UNet((1, 8, 8), (1, 8, 8), channels=4, norm="none")
    convolutions = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert all(convolution.bias is not None for convolution in convolutions)


@pytest.mark.parametrize(
    ("name", "bad"), [("activation", "rleu"), ("norm", "layer"), ("dropout", 1), ("dropout", -0.1)]
)
def test_refuses_a_bad_knob_by_name(name, bad):
    with pytest.raises(ValueError, match=rf"^{name} must be .*, got {bad!r}"):
        UNet((1, 8, 8), (1, 8, 8), **{name: bad})

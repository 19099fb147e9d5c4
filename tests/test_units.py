"""Which weights make up a unit, by the module that owns them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainer.clipping.units import find_units, head


def norms(module: nn.Module, name: str, **axes: Any) -> Tensor:
    """The norms of the units of a parameter, flat."""
    parameter = module.get_parameter(name)
    units = find_units(module, axes)[parameter]
    if not units.axes:
        return torch.linalg.vector_norm(parameter.double())[None]
    assert units.shape(parameter) == units.norms(parameter.detach(), torch.float64).shape
    return units.norms(parameter.detach(), torch.float64).flatten()


def rows(parts: list[Tensor]) -> Tensor:
    return torch.stack([torch.linalg.vector_norm(part.detach().double()) for part in parts])


@pytest.mark.parametrize(
    "module",
    [nn.Linear(3, 4), nn.Conv1d(2, 4, 3), nn.Conv3d(2, 4, 2), nn.Conv2d(4, 8, 3, groups=4)],
    ids=str,
)
def test_a_unit_is_what_one_output_is_made_of(module: nn.Module) -> None:
    weight = module.get_parameter("weight")
    torch.testing.assert_close(norms(module, "weight"), rows(list(weight)))
    torch.testing.assert_close(norms(module, "bias"), rows([module.get_parameter("bias")]))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize(
    "kind", [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d], ids=lambda k: k.__name__
)
def test_of_a_transposed_convolution_too(kind: Any, groups: int) -> None:
    # timm and Composer take axis 0 there, that of the inputs.
    module = kind(4, 6, 2, groups=groups)
    expected = []
    for output in range(6):  # the weights that the output depends on, found by asking for it
        module.zero_grad()
        x = torch.ones(1, 4, *[1] * (module.weight.dim() - 2))
        module(x)[0, output].sum().backward()
        expected.append(module.weight[module.weight.grad != 0])
    torch.testing.assert_close(norms(module, "weight"), rows(expected))


def test_weights_of_one_entry_per_unit_are_a_vector() -> None:
    assert norms(nn.Conv2d(5, 5, 1, groups=5), "weight").shape == (1,)
    assert norms(nn.LayerNorm(7), "weight").shape == (1,)
    assert norms(nn.PReLU(), "weight").shape == (1,)


@pytest.mark.parametrize(
    ("module", "weight", "bias", "parts"),
    [
        (nn.MultiheadAttention(4, 2), "in_proj_weight", "in_proj_bias", 3),
        (nn.LSTM(3, 5), "weight_ih_l0", "bias_ih_l0", 4),
        (nn.GRU(3, 5), "weight_hh_l0", "bias_hh_l0", 3),
        (nn.LSTMCell(3, 5), "weight_hh", "bias_hh", 4),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_layers_that_are_kept_in_one_are_told_apart(
    module: nn.Module, weight: str, bias: str, parts: int
) -> None:
    nn.init.normal_(module.get_parameter(bias))
    torch.testing.assert_close(norms(module, weight), rows(list(module.get_parameter(weight))))
    torch.testing.assert_close(norms(module, bias), rows(list(module.get_parameter(bias).chunk(parts))))


def test_other_layouts_are_named() -> None:
    module = nn.Module()
    module.qkv = nn.Parameter(torch.randn(4, 3, 2, 2))  # inputs, then query, key and value, heads, width
    torch.testing.assert_close(norms(module, "qkv"), rows(list(module.qkv)))
    by_output = rows(list(module.qkv.flatten(1).T))
    torch.testing.assert_close(norms(module, "qkv", qkv=[1, 2, 3]), by_output)
    torch.testing.assert_close(norms(module, "qkv", qkv=1), rows(list(module.qkv.unbind(1))))


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"weigth": 1}, "clip.axes must name parameters of the model by their end, got 'weigth'"),
        ({"weight": 2}, "clip.axes must be some of a parameter's 2, got"),
        ({"weight": [0, 1]}, "clip.axes must be some of a parameter's 2, got"),
    ],
)
def test_axes_that_do_not_fit_are_refused(axes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_units(nn.Linear(2, 3), axes)


def test_the_head_is_the_last_module_with_a_weight_matrix() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1), nn.LayerNorm(1))
    assert [id(p) for p in head(net)] == [id(p) for p in net[2].parameters()]
    assert head(nn.LayerNorm(3)) == []

"""BatchNorm over a batch of which each of several processes has some rows."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from several import together
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from trainer.distributed.meeting import Meeting
from trainer.distributed.normalization import synchronized
from trainer.distributed.torchrun import Place

wide = partial(torch.tensor, dtype=torch.float64)
KINDS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "vectors": (lambda: nn.BatchNorm1d(3), (5, 3)),
    "images": (lambda: nn.BatchNorm2d(3), (5, 3, 2, 2)),
    "without weights or statistics": (
        lambda: nn.BatchNorm1d(3, affine=False, track_running_stats=False),
        (5, 3),
    ),
    "by a cumulative mean": (lambda: nn.BatchNorm1d(3, momentum=None), (5, 3)),
}


def batch(shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return 1e3 + torch.randn(shape, generator=generator, dtype=torch.float64)


def computed(rows: slice, make: Callable[[], nn.Module], shape: tuple[int, ...]) -> list[Any]:
    """Output, slope of a weighted sum of it, slopes of the weights and statistics after two steps."""
    layer, x = make().double(), batch(shape)
    weights = torch.arange(x.numel(), dtype=torch.float64).view(shape)[rows]
    for _ in range(2):
        own = x[rows].clone().requires_grad_()
        y = layer(own)
        layer.zero_grad()
        (y * weights).sum().backward()
    assert own.grad is not None
    slopes = [p.grad for p in layer.parameters()]
    parts = ([y.detach()], [own.grad], slopes, list(layer.buffers()))
    return [[tensor.tolist() for tensor in part if tensor is not None] for part in parts]


def of_some_rows(place: Place) -> dict[str, list[Any]]:
    """Of five rows the first process has two, the second three."""
    rows, meeting = slice(5 * place.rank // 2, 5 * (place.rank + 1) // 2), Meeting(place, "gloo", 25.0)
    found = {}
    for name, (make, shape) in KINDS.items():
        layer = make()
        with synchronized(layer, meeting):
            found[name] = computed(rows, partial(_same, layer), shape)
        assert "forward" not in vars(layer), "afterwards it is what it was"
    layer = nn.BatchNorm1d(3).double()
    with synchronized(layer, meeting):
        checkpoint(layer, batch((5, 3))[rows].requires_grad_(), use_reentrant=False).sum().backward()
    return found | {"computed again": [int(layer.num_batches_tracked)]}  # type: ignore[operator]


def _same(layer: nn.Module) -> nn.Module:
    return layer


@pytest.fixture(scope="module")
def both() -> list[dict[str, list[Any]]]:
    return together(of_some_rows)


@pytest.mark.parametrize("name", KINDS)
def test_rows_in_two_processes_are_normalized_as_in_one(
    both: list[dict[str, list[Any]]], name: str
) -> None:
    expected = computed(slice(None), *KINDS[name])
    first, second = (result[name] for result in both)
    close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-9)
    for place in (0, 1):  # what they computed, and its slope, row by row
        close(wide(first[place][0] + second[place][0]), wide(expected[place][0]))
    for one, other, whole in zip(first[2], second[2], expected[2], strict=True):
        close(wide(one) + wide(other), wide(whole))
    for statistics in (first[3], second[3]):
        for found, whole in zip(statistics, expected[3], strict=True):
            close(wide(found), wide(whole))


def test_what_is_computed_again_on_the_way_back_is_counted_once(
    both: list[dict[str, list[Any]]],
) -> None:
    assert [result["computed again"] for result in both] == [[1], [1]]


def test_in_evaluation_nobody_is_asked() -> None:
    layer = nn.BatchNorm1d(3).eval()
    expected = layer(torch.ones(2, 3))
    with synchronized(layer, Meeting(Place(0, 2), "gloo", 1.0)):
        assert torch.equal(layer(torch.ones(2, 3)), expected)

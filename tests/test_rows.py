"""Tensors of which each of several processes holds a part are measured whole."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from trainer.clipping import total_norm
from trainer.clipping.norms import tensor_norms
from trainer.clipping.rows import Rows, cut_like, picked

AXES = [0, 1, None, 0]  # of the four tensors below


def tensors() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 3), (3, 6), (5,), (2, 2, 2)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def each_part(measure: Callable[[Rows], Tensor], whole: list[Tensor]) -> list[Tensor]:
    """What each of two processes finds, of which one after the other is asked what it has to say."""

    def parts(rank: int) -> list[Tensor]:
        pairs = zip(whole, AXES, strict=True)
        return [t if axis is None else t.chunk(2, axis)[rank].contiguous() for t, axis in pairs]

    said: list[Tensor] = []

    def say(own: Tensor) -> Tensor:
        said.append(own)
        return torch.stack((own, own))

    for rank in range(2):
        measure(Rows(parts(rank), AXES, say))
    heard = torch.stack(said)
    return [measure(Rows(parts(rank), AXES, lambda own: heard)) for rank in range(2)]


@pytest.mark.parametrize("norm_type", [1.0, 2.0, math.inf])
def test_norms_of_parts_are_those_of_the_whole(norm_type: float) -> None:
    whole = tensors()
    for measure in (tensor_norms, total_norm):
        expected = measure(whole, norm_type)
        for found in each_part(lambda rows, m=measure: m(rows, norm_type), whole):  # type: ignore[misc]
            torch.testing.assert_close(found, expected, rtol=1e-14, atol=0)


def test_a_norm_that_float32_cannot_hold_in_one_part_is_measured() -> None:
    rows = Rows([torch.full((2,), 3e30)], [0], lambda own: torch.stack((own, torch.ones_like(own))))
    assert total_norm(rows).item() == pytest.approx(3e30 * math.sqrt(2), rel=1e-6)


def test_parts_that_are_picked_or_put_in_their_place_stay_parts() -> None:
    whole = tensors()
    rows = Rows(whole, AXES, lambda own: own)
    chosen = picked(rows, [1, 2])
    assert isinstance(chosen, Rows)
    assert chosen.axes == [1, None]
    assert chosen[0] is whole[1]
    others = cut_like(whole[:1], chosen)
    assert isinstance(others, Rows)
    assert others.axes == [1]
    assert type(picked(whole, [1, 2])) is type(cut_like(whole, whole)) is list

"""Tensors of which each of several processes holds a part are measured whole."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from trainer.clipping import AGC, total_norm
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


def test_units_that_a_cut_goes_through_are_clipped_as_one() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(4, 3, bias=False).double()
    layer.weight.grad = torch.randn(3, 4, dtype=torch.float64)
    clip = AGC(0.01, skip_head=False)
    expected = layer.weight.grad.clone()
    bind(clip, layer)
    clip([expected], total_norm([expected]))
    halves = [layer.weight.grad.chunk(2, 1)[rank].clone() for rank in range(2)]
    weights = layer.weight.detach().chunk(2, 1)
    for rank in range(2):
        other = 1 - rank

        def heard(own: Tensor, other: int = other) -> Tensor:
            same_kind = [halves[other], weights[other]]
            lengths = [torch.linalg.vector_norm(t, dim=1) for t in same_kind]
            theirs = lengths[0] if len(own) == 3 and not asked else lengths[1]
            asked.append(1)
            return torch.stack((own, theirs if len(own) == 3 else own))

        asked: list[int] = []
        part = nn.Linear(2, 3, bias=False).double()
        part.weight.data, part.weight.grad = weights[rank].contiguous(), halves[rank].clone()
        clip = AGC(0.01, skip_head=False)
        bind(clip, part)
        clip(Rows([part.weight.grad], [1], heard), torch.tensor(1.0, dtype=torch.float64))
        torch.testing.assert_close(part.weight.grad, expected.chunk(2, 1)[rank])


def bind(clip: AGC, layer: nn.Module) -> None:
    clip.bind(layer, torch.optim.SGD(layer.parameters(), 0.1))

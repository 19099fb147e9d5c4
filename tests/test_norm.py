"""Clipping by the global norm: its bound, its direction, the published formula, many members."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from clips import clip, copies, loose
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.clipping import AdaGC, AutoClip, ClipByLayerNorm, ClipByNorm, ZClip, rescaled, total_norm


@settings(max_examples=50, deadline=None)
@given(
    scale=st.floats(1e-3, 1e6),
    max_norm=st.floats(1e-3, 1e3),
    norm_type=st.sampled_from([1, 2, math.inf]),
)
def test_norm_brings_the_norm_within_the_bound_and_keeps_the_direction(
    scale: float, max_norm: float, norm_type: float
) -> None:
    grads = loose(scale)
    after = clip(ClipByNorm(max_norm, norm_type), copies(grads))
    assert total_norm(after, norm_type).item() <= max_norm * (1 + 1e-6)
    flat, flat_after = (torch.cat([g.flatten() for g in x]).double() for x in (grads, after))
    assert torch.cosine_similarity(flat, flat_after, dim=0).item() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("norm_type", [1.0, 2.0, math.inf])
def test_norm_equals_the_published_formula_in_float64(norm_type: float) -> None:
    grads = loose(10.0, torch.float64)
    norm = torch.linalg.vector_norm(torch.cat([g.flatten() for g in grads]), norm_type)
    expected = [g * min(1.0, 1.0 / (norm.item() + 1e-6)) for g in grads]
    for got, want in zip(clip(ClipByNorm(1.0, norm_type), copies(grads)), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-14, atol=0)


def test_one_formula_serves_many_members() -> None:
    norms = torch.tensor([0.5, 2.0, math.nan, math.inf, 1.0], dtype=torch.float64)
    together = rescaled(norms, 1.0).coefficient
    assert together is not None
    assert together.tolist() == [1.0, 1.0 / (2.0 + 1e-6), 1.0, 1.0, 1.0]
    for norm, expected in zip(norms, together, strict=True):
        alone = rescaled(norm, 1.0).coefficient  # None: nothing to multiply
        assert (1.0 if alone is None else alone) == expected.item()


@pytest.mark.parametrize("bad", [0, 3, -2, True, "two", None, math.nan])
def test_a_norm_type_that_is_not_1_2_or_inf_is_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match="norm_type must be 1, 2 or inf"):
        ClipByNorm(1.0, bad)


@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf, True, "1", None])
@pytest.mark.parametrize("part", [ClipByNorm, ClipByLayerNorm, AutoClip, ZClip, AdaGC])
def test_a_bound_that_cannot_be_meant_is_refused(part: Any, bad: Any) -> None:
    # clip_grad_norm_ with max_norm -1 turns the gradient [3, 4] into [-0.6, -0.8], uphill; with 0 the
    # training stands still.
    with pytest.raises(ValueError, match=r"^max_norm must be .* use clip=none"):
        part(max_norm=bad)


def test_a_norm_within_a_millionth_of_the_bound_is_left_alone() -> None:
    for norm in (torch.tensor(1.0000005), torch.tensor([1.0000005, 1.0])):
        coefficient = rescaled(norm, 1.0).coefficient
        assert coefficient is None or torch.equal(coefficient, torch.ones(2))

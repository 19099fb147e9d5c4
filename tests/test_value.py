"""Clipping by value is clamping."""

from __future__ import annotations

import math

import pytest
import torch
from clips import clip, loose, same

from trainer.clipping import ClipByValue, total_norm


def test_value_equals_clamp() -> None:
    grads = loose(3.0)
    expected = [g.clamp(-0.5, 0.5) for g in grads]
    assert same(clip(ClipByValue(0.5), grads), expected)


def test_value_reports_the_norm_after() -> None:
    grads = [torch.tensor([3.0, -4.0])]
    clipped = ClipByValue(1.0)(grads, total_norm(grads))
    assert clipped.norm is not None
    assert clipped.norm.item() == pytest.approx(math.sqrt(2))


@pytest.mark.parametrize("bad", [0, -1, math.nan, math.inf, True, "1", None])
def test_a_bound_that_cannot_be_meant_is_refused(bad: object) -> None:
    with pytest.raises(ValueError, match=r"^clip_value must be .* use clip=none"):
        ClipByValue(bad)  # type: ignore[arg-type]


def test_an_inf_is_still_found_after_it() -> None:
    # clip_grad_value_(0.5) turns the gradient [nan, inf, 2] into [nan, 0.5, 0.5]: the NaN survives, and
    # without one nobody would know that there was an inf.
    grads = [torch.tensor([-math.inf, math.inf, 2.0])]
    assert clip(ClipByValue(0.5), grads)[0].tolist() == [-math.inf, math.inf, 2.0]

"""Clipping by value is clamping."""

from __future__ import annotations

import math

import pytest
import torch
from clips import clip, gradients, same

from trainer.clipping import ClipByValue, total_norm


def test_value_equals_clamp() -> None:
    grads = gradients(3.0)
    expected = [g.clamp(-0.5, 0.5) for g in grads]
    assert same(clip(ClipByValue(0.5), grads), expected)


def test_value_reports_the_norm_after() -> None:
    grads = [torch.tensor([3.0, -4.0])]
    clipped = ClipByValue(1.0)(grads, total_norm(grads))
    assert clipped.norm is not None
    assert clipped.norm.item() == pytest.approx(math.sqrt(2))

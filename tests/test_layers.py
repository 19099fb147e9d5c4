"""Clipping tensor by tensor: each within the bound, in its own direction, the others untouched."""

from __future__ import annotations

import math

import pytest
import torch
from clips import clip, copies, loose

from trainer.clipping import ClipByLayerNorm, ClipByNorm, total_norm


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_each_tensor_is_clipped_as_if_it_were_alone(dtype: torch.dtype) -> None:
    grads = loose(2.0, dtype)
    after = clip(ClipByLayerNorm(1.0), copies(grads))
    for a, b in zip(after, grads, strict=True):
        assert torch.equal(a, clip(ClipByNorm(1.0), [b.clone()])[0])
        assert torch.linalg.vector_norm(a) <= 1 + 1e-6
        assert torch.cosine_similarity(a.flatten(), b.flatten(), dim=0) == pytest.approx(1)


def test_a_long_tensor_does_not_shorten_another() -> None:
    grads = [torch.tensor([1e6]), torch.tensor([0.3])]
    assert clip(ClipByLayerNorm(1.0), grads)[1].equal(torch.tensor([0.3]))


def test_the_norm_after_is_that_of_what_is_left() -> None:
    grads = loose(3.0, torch.float64)
    clipped = ClipByLayerNorm(1.0)(grads, total_norm(grads))
    torch.testing.assert_close(clipped.norm, total_norm(grads), rtol=1e-14, atol=0)
    assert clipped.norm is not None
    assert clipped.norm.item() <= math.sqrt(len(grads))

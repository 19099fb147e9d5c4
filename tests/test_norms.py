"""The norm of all gradients as one vector."""

from __future__ import annotations

import math

import pytest
import torch
from clips import loose

from trainer.clipping import total_norm


@pytest.mark.parametrize("norm_type", [1.0, 2.0, math.inf])
def test_total_norm_is_that_of_all_gradients_as_one_vector(norm_type: float) -> None:
    grads = loose(3.0, torch.float64)
    flat = torch.cat([g.flatten() for g in grads])
    expected = torch.linalg.vector_norm(flat, norm_type)
    torch.testing.assert_close(total_norm(grads, norm_type), expected, rtol=1e-14, atol=0)


def test_no_gradient_at_all_is_named() -> None:
    with pytest.raises(ValueError, match="no parameter received a gradient"):
        total_norm([])

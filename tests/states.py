"""States side by side."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def equal(a: Any, b: Any) -> bool:
    """Whether two trees of plain data are the same to the bit, tensors among them."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return torch.equal(a, b) if isinstance(a, Tensor) else bool(a == b)

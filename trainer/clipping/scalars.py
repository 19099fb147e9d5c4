"""What a formula needs beside + − · /, on numbers of the host and on tensors alike.

A threshold that is learned from norms takes some thirty operations: of a tensor's they cost a small
model a good part of its step, of Python's floats next to nothing. Both are float64 and agree bit for
bit but in `root`: torch's square root on a CPU may be off by a unit in the last place.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trainer.clipping.norms import known_to_host

Number = Tensor | float


def number(norm: Tensor) -> Number:
    """The norm as a float where the host knows it, else as a float64 tensor, shape () or (K,)."""
    return norm.item() if known_to_host(norm) else norm.double()


def beside(value: Number, norm: Number) -> Number:
    """The value in the form of the norm, where the norm is."""
    if isinstance(norm, Tensor):
        return torch.as_tensor(value, dtype=torch.float64, device=norm.device)
    return float(value)


def where(condition: Tensor | bool, a: Number, b: Number) -> Number:
    """a where the condition holds, else b."""
    if isinstance(condition, Tensor):
        return torch.where(condition, a, b)
    return a if condition else b


def larger(a: Number, b: Number) -> Number:
    """The larger of both; a where b is NaN."""
    return where(b > a, b, a)


def smaller(a: Number, b: Number) -> Number:
    """The smaller of both; a where b is NaN."""
    return where(b < a, b, a)


def root(value: Number) -> Number:
    """√value."""
    return value.sqrt() if isinstance(value, Tensor) else math.sqrt(value)

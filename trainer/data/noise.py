"""Noise to be removed again."""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.data.tensors import Batch


def with_noise(inputs: Tensor, clean: Tensor, generator: torch.Generator, sigma: float) -> Batch:
    """clip(y + sigma · n, 0, 1), n ~ N(0, 1), and y; as a transform of `TensorData`."""
    # Drawn on the CPU, where the generator is, and in float32: the same noise on every device.
    noise = torch.randn(clean.shape, generator=generator).to(clean)
    return (clean + sigma * noise).clamp(0, 1), clean

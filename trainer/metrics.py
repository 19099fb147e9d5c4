"""Validation metrics: plain functions of one value per sample, averaged over the samples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure of merit.

    Attributes:
        function: (predictions, targets), each (B, …), to one value per sample, shape (B,); targets are
            a tuple where the data has several.
        higher_is_better: whether a larger value is the better one.
    """

    function: Callable[[Tensor, Any], Tensor]
    higher_is_better: bool


def psnr(predictions: Tensor, targets: Tensor, peak: float = 1.0) -> Tensor:
    """Peak signal-to-noise ratio of each sample in dB: 10·log10(peak² / MSE), MSE >= 1e-10.

    Args:
        predictions: (B, …).
        targets: (B, …).
        peak: the largest possible value of a target.
    """
    mse = (predictions - targets).square().flatten(1).mean(1)
    return 10 * torch.log10(peak**2 / mse.clamp_min(1e-10))


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """1 where the largest of the logits (B, C) is that of the label (B,), else 0; shape (B,)."""
    return (logits.argmax(1) == labels).float()

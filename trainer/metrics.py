"""Validation metrics: plain functions of one value per sample, averaged over the samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


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
    mse = squared_error(predictions, targets)
    return 10 * torch.log10(peak**2 / mse.clamp_min(1e-10))


def squared_error(predictions: Tensor, targets: Tensor) -> Tensor:
    """Mean of (p − t)² of each sample (B, …), shape (B,)."""
    return (predictions - targets).square().reshape(len(targets), -1).mean(1)


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """The share of labels whose logit is the largest, per sample, shape (B,).

    Args:
        logits: (B, C, …).
        labels: (B, …).
    """
    return (logits.argmax(1) == labels).float().reshape(len(labels), -1).mean(1)


def bits_per_label(logits: Tensor, labels: Tensor) -> Tensor:
    """−log2 p(label) of each sample, averaged over its labels, shape (B,): bits per character.

    Args:
        logits: (B, C, …).
        labels: (B, …).
    """
    nats = cross_entropy(logits, labels, reduction="none")
    return nats.reshape(len(labels), -1).mean(1) / math.log(2)


def absolute_error(predictions: Tensor, targets: Tensor, units: Sequence[float]) -> Tensor:
    """Mean of |p − t| of each sample in the targets' own units, shape (B,).

    Args:
        predictions: (B, …).
        targets: (B, …), divided by their ``units``.
        units: what one stands for in each column, or in all of them.
    """
    error = (predictions - targets).abs().reshape(len(targets), -1)
    return (error * error.new_tensor(units)).mean(1)


def explained(predictions: Tensor, targets: Tensor, variance: Sequence[float]) -> Tensor:
    """1 − (p − t)² / Var(t), shape (B,): its mean over the samples that ``variance`` is of is R².

    Args:
        predictions: (B, k) or (B,).
        targets: likewise.
        variance: of each column, with its own mean and without Bessel's correction.
    """
    error = (predictions - targets).square().reshape(len(targets), -1)
    return 1 - (error / error.new_tensor(variance)).mean(1)

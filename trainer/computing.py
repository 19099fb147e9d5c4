"""How a model is computed, beside in which numbers: as it is, or compiled."""

from __future__ import annotations

import torch
from torch import nn


def check_together(compile: bool, detect_anomaly: bool) -> None:
    """Refuses settings that exclude each other.

    Raises:
        ValueError: naming them.
    """
    if detect_anomaly and compile:
        raise ValueError("detect_anomaly must be false for a compiled model; use compile=false")


def computed(model: nn.Module, compile: bool = False) -> nn.Module:
    """What to call in the place of the model; its parameters and modes stay the model's.

    Args:
        model: on its device.
        compile: whether to run it through `torch.compile`.
    """
    return torch.compile(model) if compile else model  # type: ignore[return-value]

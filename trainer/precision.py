"""Number formats of a run."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from trainer import checks

PRECISIONS = ("fp64", "fp32", "bf16", "fp16")
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: str) -> torch.device:
    """The device of that name; "auto" is CUDA where there is one, else the CPU.

    Raises:
        ValueError: if the name is unknown or this machine lacks the device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu, cuda or cuda:<n>, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device must be one this machine has, got {name!r} with "
            f"{torch.cuda.device_count()} CUDA devices; use device=cpu"
        )
    return device


class Precision:
    """What numbers are stored and computed in.

    fp64 and fp32 store and compute in that format; bf16 and fp16 store parameters in float32 and compute
    the forward pass under autocast. fp16 needs a `trainer.scaler.Scaler` for the way back.

    Args:
        name: one of fp64, fp32, bf16, fp16.
        device: where the run takes place.

    Raises:
        ValueError: for another name.
    """

    def __init__(self, name: str, device: torch.device) -> None:
        self.name = checks.choice("precision", name, PRECISIONS)
        self.dtype = torch.float64 if name == "fp64" else torch.float32
        self.device = device
        self.autocasts = name in AUTOCAST

    def autocast(self) -> AbstractContextManager[object]:
        """The context of a forward pass."""
        if not self.autocasts:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=AUTOCAST[self.name])

"""The random number generators that a run draws from, as data."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and torch (all devices), so that jobs in one process start alike."""
    random.seed(seed)
    np.random.seed(seed)
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:  # or torch would note for each kind of device, with a traceback, that it is to be seeded later
        torch.default_generator.manual_seed(seed)


def seed_first(seed: int, step: int) -> None:
    """Seeds torch where a run begins; one that goes on has its generators from where it was."""
    if step == 0:
        torch.manual_seed(seed)


def rng_state(device: torch.device) -> dict[str, Any]:
    """The states of the generators that models draw from, as tensors and plain values."""
    name, keys, *rest = np.random.get_state()
    version, internal, gauss = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "device": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": [str(name), torch.from_numpy(np.array(keys, dtype=np.int64)), *rest],
        "python": [version, gauss, torch.tensor(internal)],
    }


def set_rng_state(device: torch.device, state: dict[str, Any]) -> None:
    """Restores what `rng_state` returned."""
    torch.set_rng_state(state["torch"])
    if state["device"] is not None:
        torch.cuda.set_rng_state(state["device"], device)
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    version, gauss, *internal = state["python"]  # one number after another in files of format 1
    internal = internal[0].tolist() if len(internal) == 1 else internal
    random.setstate((version, tuple(internal), gauss))

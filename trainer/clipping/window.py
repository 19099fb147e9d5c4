"""The latest gradient norms, as tensors, for the modes that learn their threshold."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

LARGEST = 1e150  # the square of a norm beyond it is no float64


class NormWindow:
    """The latest norms of one run, or of K runs that need not have seen equally many.

    A ring buffer in float64 that takes on the shape of the first norm. A norm that is not finite, or 0,
    does not enter.

    Args:
        size: how many norms are kept.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.norms = torch.zeros(size, dtype=torch.float64)
        self.count = torch.zeros((), dtype=torch.int64)

    def to(self, device: torch.device) -> None:
        """Moves it to where the norms are."""
        self.norms, self.count = self.norms.to(device), self.count.to(device)

    def add(self, norm: Tensor, wanted: Tensor | bool = True) -> None:
        """Takes a norm of shape () or (K,) into account, for the members it is wanted of."""
        norms = self.norms if self.norms.dim() > norm.dim() else self.norms[:, None]
        norms = norms.expand(self.size, *norm.shape)
        known = informative(norm) & wanted
        slot = (self.count % self.size).expand(norm.shape)[None]
        kept = torch.where(known, norm.double(), norms.gather(0, slot)[0])
        self.norms = norms.scatter(0, slot, kept[None])  # not in place: a saved state stays as it is
        self.count = self.count + known

    def quantile(self, q: float) -> Tensor:
        """The q-quantile of the norms, between two of them by a straight line; inf before the first."""
        filled = self.count.clamp(max=self.size)
        ordered = torch.where(self.filled(), self.norms, math.inf).sort(0).values
        place = q * (filled - 1).clamp(min=0).double()[None]
        low, high = (ordered.gather(0, end.long())[0] for end in (place.floor(), place.ceil()))
        return torch.where(low == high, low, low + (high - low) * place.frac()[0])

    def filled(self) -> Tensor:
        """Which places hold a norm, shape (size,) or (size, K)."""
        places = torch.arange(self.size, device=self.count.device)
        return places.view(-1, *[1] * (self.norms.dim() - 1)) < self.count

    def state_dict(self) -> dict[str, Any]:
        """The norms and how many there have been."""
        return {"norms": self.norms, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores them.

        Raises:
            ValueError: if the state is that of a window of another size.
        """
        if len(state["norms"]) != self.size:
            raise ValueError(f"the saved norms must be {self.size}, got {len(state['norms'])}")
        self.norms, self.count = state["norms"], state["count"]


def informative(norm: Tensor) -> Tensor:
    """Whether a norm tells anything of how long gradients are: it is finite, and not 0."""
    return (norm > 0) & (norm < LARGEST)

"""The latest gradient norms, for the modes that learn their threshold."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer.clipping.scalars import Number

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
        self.count: Tensor | int = 0

    def to(self, norm: Number) -> None:
        """Brings it to where the norm is that comes next, and into its form."""
        if isinstance(norm, Tensor):
            self.norms = self.norms.to(norm.device)
            self.count = torch.as_tensor(self.count, device=norm.device)
        else:
            self.count = int(self.count)

    def add(self, norm: Number, wanted: Tensor | bool = True) -> None:
        """Takes a norm into account, for the members it is wanted of."""
        known = informative(norm) & wanted
        if isinstance(norm, Tensor) and isinstance(self.count, Tensor):
            norms = self.norms if self.norms.dim() > norm.dim() else self.norms[:, None]
            norms = norms.expand(self.size, *norm.shape)
            slot = (self.count % self.size).expand(norm.shape)[None]
            kept = torch.where(torch.as_tensor(known), norm, norms.gather(0, slot)[0])
            self.norms = norms.scatter(0, slot, kept[None])
            self.count = self.count + known
        elif known:
            self.norms.numpy()[self.count % self.size] = norm
            self.count += 1

    def quantile(self, q: float) -> Number:
        """The q-quantile of the norms, between two of them by a straight line; inf before the first."""
        if isinstance(self.count, Tensor):
            return self._quantiles(q, self.count)
        known = min(self.count, self.size)
        if not known:
            return math.inf
        place = q * (known - 1)
        ends = math.floor(place), math.ceil(place)
        low, high = np.partition(self.norms[:known].numpy(), ends)[list(ends)].tolist()
        return float(low + (high - low) * (place - ends[0]))

    def _quantiles(self, q: float, count: Tensor) -> Tensor:
        places = torch.arange(self.size, device=count.device)
        filled = places.view(-1, *[1] * (self.norms.dim() - 1)) < count
        ordered = torch.where(filled, self.norms, math.inf).sort(0).values
        place = q * (count.clamp(1, self.size) - 1).double()
        ends = [end.long().expand(ordered.shape[1:])[None] for end in (place.floor(), place.ceil())]
        low, high = (ordered.gather(0, end)[0] for end in ends)
        return torch.where(low == high, low, low + (high - low) * place.frac())  # inf − inf is NaN

    def state_dict(self) -> dict[str, Any]:
        """The norms and how many there have been."""
        return {"norms": self.norms.clone(), "count": torch.as_tensor(self.count)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores them.

        Raises:
            ValueError: if the state is that of a window of another size.
        """
        if len(state["norms"]) != self.size:
            raise ValueError(f"the saved norms must be {self.size}, got {len(state['norms'])}")
        self.norms, self.count = state["norms"].clone(), state["count"]


def informative(norm: Number) -> Tensor | bool:
    """Whether a norm tells anything of how long gradients are: it is finite, and not 0."""
    return (norm > 0) & (norm < LARGEST)

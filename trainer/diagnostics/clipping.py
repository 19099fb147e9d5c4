"""What the clip had to do with which layer: whose gradient made it bind, and where it turned it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def shares_of_norm(norms: Mapping[str, float]) -> dict[str, float]:
    """Each layer's part in the squared gradient norm, ‖gₗ‖²/Σₖ‖gₖ‖², the largest first.

    Args:
        norms: of each layer's gradient.

    Example:
        >>> shares_of_norm({"body": 3.0, "head": 4.0})
        {'head': 0.64, 'body': 0.36}
    """
    whole = sum(norm * norm for norm in norms.values()) or 1.0
    shares = {name: norm * norm / whole for name, norm in norms.items()}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def cosine(raw: Sequence[Tensor], clipped: Sequence[Tensor]) -> Tensor:
    """The cosine of the angle between two gradients, each a list of tensors: 1 where only the length
    differs. A tensor of shape (), no host synchronisation.

    Example:
        >>> round(cosine([torch.tensor([3.0, 4.0])], [torch.tensor([3.0, 0.0])]).item(), 6)
        0.6
    """
    products = torch.stack([(a * b).sum(dtype=torch.float64) for a, b in zip(raw, clipped, strict=True)])
    lengths = [
        torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(side), dtype=torch.float64)))
        for side in (raw, clipped)
    ]
    angle: Tensor = products.sum() / (lengths[0] * lengths[1])
    return angle


class Culprits:
    """Which layers the gradient is long in when it is clipped, over the sampled steps."""

    def __init__(self) -> None:
        self.steps = 0
        self.sums: dict[str, float] = {}

    def add(self, norms: Mapping[str, float]) -> None:
        """Takes in the layers of a step that was clipped."""
        self.steps += 1
        for name, share in shares_of_norm(norms).items():
            self.sums[name] = self.sums.get(name, 0.0) + share

    def top(self, count: int = 3) -> dict[str, float]:
        """The layers of the largest mean share; {} if no step was clipped."""
        means = {name: total / self.steps for name, total in self.sums.items()}
        return dict(sorted(means.items(), key=lambda item: -item[1])[:count])

    def state_dict(self) -> dict[str, Any]:
        """The sums so far."""
        return {"steps": self.steps, "sums": dict(self.sums)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the sums."""
        self.steps, self.sums = state["steps"], dict(state["sums"])

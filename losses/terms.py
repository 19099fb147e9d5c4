"""Several losses on the same predictions, by name: what the adaptive weightings weigh."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

PREFIX = "weight_"


class Terms(nn.Module):
    """The value of each of some losses.

    Args:
        losses: at least two ``(predictions, targets) -> scalar``, or to ``(scalar, {term: scalar})``, of
            which the scalar counts; by the name they are recorded under.

    Raises:
        ValueError: for fewer than two, for a name that cannot be recorded, or what is no loss.
    """

    def __init__(self, losses: Mapping[str, Callable[..., Any]]) -> None:
        super().__init__()
        if not isinstance(losses, Mapping) or len(losses) < 2:
            raise ValueError(f"terms must be at least two losses by name, got {losses!r}")
        for name, loss in losses.items():
            if not isinstance(name, str) or not name or name.startswith(PREFIX):
                raise ValueError(f"terms must have names that do not open with {PREFIX}, got {name!r}")
            if not callable(loss):
                raise ValueError(f"terms must be losses, got {loss!r} for {name}")
        self.losses = dict(losses)
        self.parts = nn.ModuleList(loss for loss in losses.values() if isinstance(loss, nn.Module))

    def forward(self, predictions: Tensor, targets: Any) -> dict[str, Tensor]:
        """Each loss's scalar by name."""
        values = ((name, loss(predictions, targets)) for name, loss in self.losses.items())
        return {name: value[0] if isinstance(value, tuple) else value for name, value in values}


def weighed(terms: dict[str, Tensor], weights: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Σ wᵢLᵢ, and what is recorded: the terms without weight, then ``weight_<term>``.

    Args:
        terms: scalars by name.
        weights: shape (terms,), in the same order.
    """
    total = (weights * torch.stack(list(terms.values()))).sum()
    named = zip((PREFIX + name for name in terms), weights.detach(), strict=True)
    return total, {**terms, **dict(named)}

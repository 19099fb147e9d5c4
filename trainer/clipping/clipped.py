"""What a clip is, and the mode that does nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

REMEDY = "use clip=none to train without clipping"


@dataclass(frozen=True, slots=True)
class Clipped:
    """What a clip did to one step's gradients.

    Attributes:
        coefficient: what the gradients are still to be multiplied by: a tensor shaped like the norm, or
            a float where the host knows the norm anyway; None when nothing is.
        norm: norm of the gradients after clipping; None where it is ``norm · coefficient``.
        threshold: the bound that was applied, for the record; None where no single one was.
        lr_factor: what the learning rates are multiplied by in this step.
    """

    coefficient: Tensor | float | None = None
    norm: Tensor | None = None
    threshold: Tensor | float | None = None
    lr_factor: float = 1.0


class Clip(Protocol):
    """A clipping mode: which norm it wants measured, and what it does with the gradients.

    It may have a method ``bind(model, optimizer)``, see `trainer.clipping`; and ``in_parts = True``, to
    say that it is right for gradients of which each of several processes holds a part (`Rows`): it goes
    by the norm it is given, by each entry alone, or by what `trainer.clipping.norms` measures.
    """

    norm_type: float

    def __call__(self, gradients: list[Tensor], norm: Tensor) -> Clipped: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Stateless:
    """The part of a mode that remembers nothing between steps."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing to save."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


def present(parameters: Sequence[Tensor], count: int) -> list[int]:
    """The places of the parameters that have a gradient in this step.

    Raises:
        ValueError: if they are not so many as there are gradients.
    """
    places = [place for place, parameter in enumerate(parameters) if parameter.grad is not None]
    if len(places) != count:
        raise ValueError(
            f"the clip must be bound to the parameters of its {count} gradients, and {len(places)} "
            "have one; call bind(model, optimizer) first"
        )
    return places


class NoClip(Stateless):
    """Leaves the gradients as they are; their 2-norm is still measured and recorded."""

    norm_type, in_parts = 2.0, True

    def __call__(self, gradients: list[Tensor], norm: Tensor) -> Clipped:
        """Does nothing."""
        return Clipped()

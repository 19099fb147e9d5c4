"""Tensors of which each of several processes holds a part."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Gathered = Callable[[Tensor], Tensor]  # (k,) of each process as (N, k), the same in all of them


class Rows(list[Tensor]):
    """This process's parts of some tensors; `trainer.clipping.norms` measures them whole, all at once.

    Args:
        parts: one of each tensor.
        axes: along which each is cut, into N equal parts; None for one that every process has whole.
        gathered: asks the others.

    Example:
        >>> rows = Rows([torch.tensor([3.0])], [0], lambda own: torch.stack((own, own + 1)))
        >>> rows.together(torch.tensor([3.0]), rows.cut).item()
        5.0
    """

    def __init__(self, parts: Sequence[Tensor], axes: Sequence[int | None], gathered: Gathered) -> None:
        super().__init__(parts)
        self.axes, self.gathered = list(axes), gathered

    @property
    def cut(self) -> list[bool]:
        """Of each tensor, whether the processes have different parts."""
        return [axis is not None for axis in self.axes]

    def together(self, norms: Tensor, cut: Sequence[bool], norm_type: float = 2.0) -> Tensor:
        """The norms of the whole from those of the parts, in one exchange.

        Args:
            norms: ‖own part‖_p, shape (k,).
            cut: for each whether the others have a part too; else it stays as it is.
            norm_type: p.
        """
        whole = torch.linalg.vector_norm(self.gathered(norms), norm_type, dim=0)
        return torch.where(torch.tensor(cut, device=norms.device), whole, norms)


def picked(tensors: list[Tensor], places: Sequence[int]) -> list[Tensor]:
    """Those at the places, in that order; parts stay parts."""
    chosen = [tensors[place] for place in places]
    if not isinstance(tensors, Rows):
        return chosen
    return Rows(chosen, [tensors.axes[place] for place in places], tensors.gathered)


def cut_like(tensors: list[Tensor], others: list[Tensor]) -> list[Tensor]:
    """The tensors, which are parts where the first of the others are, in the same way."""
    if not isinstance(others, Rows):
        return tensors
    return Rows(tensors, others.axes[: len(tensors)], others.gathered)

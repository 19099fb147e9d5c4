"""Which term of a loss pulls how hard: equal weights do not mean equal pull."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from trainer.clipping import total_norm

Averaged = Callable[[Sequence[Tensor]], list[Tensor]]


def gradient_shares(
    total: Tensor,
    terms: Mapping[str, Tensor],
    parameters: Iterable[Tensor],
    averaged: Averaged = list,
    weight: float = 1.0,
) -> dict[str, Tensor]:
    """Each term's share of the gradient norm: ‖gᵢ‖ / Σⱼ‖gⱼ‖ with gᵢ = (∂total/∂Lᵢ)·∇θLᵢ.

    One backward pass per term; the graph is kept for the backward pass proper, and ``.grad`` and the
    generators stay as they are. A term that the total is not computed from (a weight that is recorded
    beside the terms, say) has no share. Where all gradients are 0, so are the shares.

    Args:
        total: the loss, a scalar.
        terms: scalars by name.
        parameters: θ; those that take or get no gradient are left out.
        averaged: the means of gradients over all that have a part of the batch.
        weight: of this part; their mean is 1.

    Returns:
        Scalars by name, which sum to 1.

    Example:
        >>> weight = torch.ones(2, requires_grad=True)
        >>> terms = {"sum": weight.sum(), "twice": 2 * weight.sum()}
        >>> shares = gradient_shares(terms["sum"] + 1.5 * terms["twice"], terms, [weight])
        >>> {name: share.item() for name, share in shares.items()}
        {'sum': 0.25, 'twice': 0.75}
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    attached = {name: term for name, term in terms.items() if term.requires_grad}
    if not trained or not attached:
        return {}
    values = tuple(attached.values())
    slopes = torch.autograd.grad(total, values, retain_graph=True, allow_unused=True)
    norms: dict[str, Tensor] = {}
    for (name, term), slope in zip(attached.items(), slopes, strict=True):
        if slope is not None:
            slope = slope if weight == 1 else slope * weight
            found = torch.autograd.grad(term, trained, slope, retain_graph=True, allow_unused=True)
            gradients = averaged([gradient for gradient in found if gradient is not None])
            norms[name] = total_norm(gradients) if gradients else torch.zeros_like(total)
    whole = sum(norms.values(), torch.zeros_like(total))
    return {name: norm / torch.where(whole == 0, 1.0, whole) for name, norm in norms.items()}


class Shares:
    """The shares of one step, over the batches that it accumulates.

    Args:
        parameters: what the gradient is taken into.
        wanted: whether whoever trains is to ask for them.

    Attributes:
        averaged: as for `gradient_shares`.
    """

    def __init__(self, parameters: Iterable[Tensor], wanted: bool = True) -> None:
        self.parameters = list(parameters)
        self.wanted = wanted
        self.averaged: Averaged = list
        self.means: dict[str, Tensor] = {}

    def add(self, total: Tensor, terms: Mapping[str, Tensor], weight: float, part: float = 1.0) -> None:
        """Takes in one batch, before its backward pass.

        Args:
            total: as for `gradient_shares`.
            terms: likewise.
            weight: its part of the samples of the step.
            part: ``weight`` for `gradient_shares`.
        """
        found = gradient_shares(total, terms, self.parameters, self.averaged, part)
        for name, share in found.items():
            self.means[name] = self.means.get(name, 0.0) + weight * share

    def forget(self) -> None:
        """The step is refused: nothing of it is recorded."""
        self.means = {}

    def read(self) -> dict[str, float]:
        """The record, ``train/share/<term>``, and begins anew; {} where a share is no number."""
        if not self.means:
            return {}
        tags = [f"train/share/{name}" for name in self.means]
        values = torch.stack(list(self.means.values())).tolist()
        self.means = {}
        return dict(zip(tags, values, strict=True)) if all(map(math.isfinite, values)) else {}

"""Clipping each unit against the length of its own weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainer import checks
from trainer.clipping.clipped import REMEDY, Clipped, Stateless, present
from trainer.clipping.norm import shrink
from trainer.clipping.norms import total_norm, wide_enough
from trainer.clipping.rows import Rows, cut_like, picked
from trainer.clipping.units import Units, find_units, head


@dataclass(frozen=True, slots=True)
class Layout:
    """Some parameters in the order that their units are gone through: those of several units, those of
    one, those that are left alone.

    Attributes:
        order: their places among the gradients.
        weights: the parameters but for those left alone.
        units: of the parameters of several.
        shapes: of the norms of each parameter, to broadcast against it.
    """

    order: list[int]
    weights: list[Tensor]
    units: list[Units]
    shapes: list[tuple[int, ...]]

    @classmethod
    def of(
        cls,
        parameters: list[nn.Parameter],
        units: Mapping[nn.Parameter, Units],
        alone: set[nn.Parameter],
    ) -> Self:
        """The layout of the parameters that have a gradient; one without known units is one unit."""
        own = [Units() if p in alone else units.get(p, Units()) for p in parameters]
        rank = [2 if p in alone else not u.axes for p, u in zip(parameters, own, strict=True)]
        order = sorted(range(len(parameters)), key=rank.__getitem__)
        return cls(
            order,
            [parameters[place] for place in order if rank[place] < 2],
            [own[place] for place in order if rank[place] == 0],
            [own[place].shape(parameters[place]) for place in order],
        )

    def norms(self, tensors: list[Tensor]) -> Tensor:
        """‖unit‖₂ of all units of tensors in this order, shape (U,)."""
        single = tensors[len(self.units) :]

        def measure(dtype: torch.dtype) -> Tensor:
            pairs = zip(self.units, tensors, strict=False)
            norms = [units.norms(tensor, dtype).flatten() for units, tensor in pairs]
            if single:
                norms.append(torch.stack(torch._foreach_norm(single, dtype=dtype)))
            return torch.cat(norms)

        if isinstance(tensors, Rows):
            return tensors.together(measure(torch.float64), self._cut(tensors.axes))
        return wide_enough(measure, tensors[0])

    def _cut(self, axes: list[int | None]) -> list[bool]:
        """For the norm of each unit of tensors in this order, whether it is cut through."""
        cut: list[bool] = []
        for units, axis, shape in zip(self.units, axes, self.shapes, strict=False):
            cut += [units.cut_by(axis)] * math.prod(shape)
        return cut + [axis is not None for axis in axes[len(self.units) :]]

    def rescale(self, tensors: list[Tensor], coefficients: Tensor) -> None:
        """Multiplies each unit in place by its coefficient; a tensor without one below 1 is left unread
        where the host can know that without waiting."""
        sizes = [math.prod(shape) for shape in self.shapes]
        touched = list(range(len(tensors)))
        if coefficients.is_cpu:
            clipped, ends = (coefficients < 1).nonzero()[:, 0], torch.tensor(sizes).cumsum(0)
            touched = torch.bucketize(clipped, ends, right=True).unique().tolist()
        parts, several = coefficients.split(sizes), len(self.units)
        views = [self.units[i].view(tensors[i]) if i < several else tensors[i] for i in touched]
        if views:
            torch._foreach_mul_(views, [parts[i].view(self.shapes[i]) for i in touched])


class AGC(Stateless):
    """Adaptive gradient clipping: no unit's gradient is longer than a share of its weights.

    Gᵢ ← Gᵢ · λ·max(‖Wᵢ‖, ε)/‖Gᵢ‖ where ‖Gᵢ‖ > λ·max(‖Wᵢ‖, ε), for each unit i, which is the weights
    that one output of a layer is made of (Brock et al. 2021, arXiv 2102.06171); a vector is one unit.
    See `find_units`. ε lets biases learn that start at zero. Changes the direction of the gradient.

    Needs `bind`, to see the weights.

    Args:
        factor: λ, the longest step as a share of the weights, at learning rate 1; > 0.
        eps: ε, what a shorter unit counts as; > 0.
        skip_head: leave alone the last module that has a weight matrix, as the paper does.
        axes: for parameters whose units are not found by the kind of their module, the axis or axes
            that number them, by the end of the parameter's name: ``{"qkv.weight": 1}``.

    Raises:
        ValueError: for an argument out of range.
    """

    norm_type, in_parts = 2.0, True

    def __init__(
        self,
        factor: float = 0.01,
        eps: float = 1e-3,
        skip_head: bool = True,
        axes: Mapping[str, int | Sequence[int]] | None = None,
    ) -> None:
        self.factor = checks.number("factor", factor, above=0, remedy=REMEDY)
        self.eps = checks.number("eps", eps, above=0, remedy="1e-3 lets zero-initialised biases learn")
        self.skip_head = bool(skip_head)
        self.axes = dict(axes or {})
        self.parameters: list[nn.Parameter] = []
        self.units: dict[nn.Parameter, Units] = {}
        self.alone: set[nn.Parameter] = set()
        self.places: list[int] | None = None
        self.layout = Layout.of([], {}, set())

    def bind(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Finds the units of the model's parameters.

        Raises:
            ValueError: if ``axes`` do not fit the model.
        """
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.units = find_units(model, self.axes)
        self.alone = set(head(model)) if self.skip_head else set()
        if self.alone.issuperset(self.parameters):
            raise ValueError("clip=agc finds nothing to clip but the head; use clip.skip_head=false")
        self.places = None

    @torch.no_grad()
    def __call__(self, gradients: list[Tensor], norm: Tensor) -> Clipped:
        """Rescales in place.

        Raises:
            ValueError: if it is not bound to the parameters of these gradients.
        """
        places = present(self.parameters, len(gradients))
        if places != self.places:  # mostly those of the last step
            self.places = places
            self.layout = Layout.of([self.parameters[place] for place in places], self.units, self.alone)
        layout = self.layout
        gradients = picked(gradients, layout.order)
        lengths = layout.norms(gradients)
        limits = torch.full_like(lengths, math.inf)
        if layout.weights:
            bounds = self.factor * layout.norms(cut_like(layout.weights, gradients)).clamp(min=self.eps)
            limits[: len(bounds)] = torch.where(norm.isfinite(), bounds, math.inf)
        coefficients = shrink(lengths, limits, margin=0.0)
        layout.rescale(gradients, coefficients)
        if isinstance(gradients, Rows):  # whose lengths are those of the own units
            return Clipped(norm=total_norm(gradients))
        return Clipped(norm=torch.linalg.vector_norm(lengths * coefficients))

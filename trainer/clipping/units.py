"""What the units of a parameter are: the weights that one output of a layer is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

# Biases that hold those of several layers one after the other, and of how many.
FUSED = {nn.MultiheadAttention: 3, nn.LSTM: 4, nn.LSTMCell: 4, nn.GRU: 3, nn.GRUCell: 3}
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True, slots=True)
class Units:
    """How to see a parameter as units: its first axis split into so many parts, then the axes that are
    summed over. No axes is the whole parameter as one unit."""

    parts: int = 1
    axes: tuple[int, ...] = ()

    def view(self, tensor: Tensor) -> Tensor:
        """The tensor with its first axis in parts."""
        return tensor if self.parts == 1 else tensor.unflatten(0, (self.parts, -1))

    def shape(self, tensor: Tensor) -> tuple[int, ...]:
        """That of the norms of the units; () for the whole parameter."""
        shape = self.view(tensor).shape if self.axes else ()
        return tuple(1 if axis in self.axes else size for axis, size in enumerate(shape))

    def cut_by(self, axis: int | None) -> bool:
        """Whether to cut the parameter along an axis cuts through units; None is not to cut it."""
        return axis is not None and (axis + (self.parts > 1)) in self.axes

    def norms(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        """‖unit‖₂ of each of several, in a shape that broadcasts against `view`."""
        norms: Tensor = torch.linalg.vector_norm(
            self.view(tensor), dim=self.axes, keepdim=True, dtype=dtype
        )
        return norms


def find_units(model: nn.Module, axes: Mapping[str, int | Sequence[int]]) -> dict[nn.Parameter, Units]:
    """The units of every parameter of a model, by the kind of module that owns it.

    A matrix or kernel has a unit for each index of its first axis, which is that of the outputs in
    `nn.Linear`, `nn.Conv2d` and recurrent layers, that of the entries in `nn.Embedding`; in a transposed
    convolution it is the second axis, within each group. A vector or scalar is one unit (as in the
    authors' code and in optax), but for the biases that `nn.MultiheadAttention` and recurrent layers
    keep in one: there each of them is.

    Args:
        model: whose parameters.
        axes: for parameters laid out otherwise, the axis or axes that number the units, by the end of
            the parameter's name.

    Raises:
        ValueError: if a name of ``axes`` is no parameter's, or the parameter has no such axis.
    """
    named = dict(model.named_parameters())
    owned = [(module, p) for module in model.modules() for p in module.parameters(recurse=False)]
    units = {parameter: _units(module, parameter) for module, parameter in owned}
    for end, chosen in axes.items():
        matching = [p for name, p in named.items() if f".{name}".endswith(f".{end}")]
        if not matching:
            raise ValueError(f"clip.axes must name parameters of the model by their end, got {end!r}")
        units |= {p: _numbered_by([chosen] if isinstance(chosen, int) else chosen, p) for p in matching}
    return units


def head(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of the last module that has a weight matrix, which is the one that predicts."""
    for module in reversed(list(model.modules())):
        own = list(module.parameters(recurse=False))
        if any(parameter.dim() > 1 for parameter in own):
            return own
    return []


def _units(module: nn.Module, parameter: Tensor) -> Units:
    parts = next((n for kind, n in FUSED.items() if isinstance(module, kind)), 1)
    if parameter.dim() == 1 and parts > 1 and parameter.numel() % parts == 0:
        return Units(parts, (1,))
    if parameter.numel() == max(parameter.shape, default=1):  # a vector, whatever its axes
        return Units()
    if isinstance(module, TRANSPOSED):
        split = module.groups > 1
        first = 2 if split else 1  # the axis that the units are numbered by
        return Units(module.groups, (first - 1, *range(first + 1, parameter.dim() + split)))
    return Units(1, tuple(range(1, parameter.dim())))


def _numbered_by(chosen: Sequence[int], parameter: Tensor) -> Units:
    summed = tuple(axis for axis in range(parameter.dim()) if axis not in chosen)
    if not summed or len(summed) + len(chosen) != parameter.dim():
        raise ValueError(f"clip.axes must be some of a parameter's {parameter.dim()}, got {chosen!r}")
    return Units(1, summed)

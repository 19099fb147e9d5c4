"""What leaves each layer on the way forward: mean, spread, largest value, and units that are silent."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

ACTIVATIONS = tuple(getattr(nn.modules.activation, name) for name in nn.modules.activation.__all__)
CHANNELS_FIRST = (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase, nn.GroupNorm)
CHANNELS_LAST = (nn.Linear, nn.Embedding, nn.LayerNorm, nn.RMSNorm, nn.RNNBase)
SILENT = 1e-6  # of the largest value: GELU and SiLU come near 0, not to it

Numbers = NDArray[np.float64]


def activation_statistics(model: nn.Module, *inputs: Tensor) -> dict[str, dict[str, float]]:
    """Mean, standard deviation, largest absolute value and share of dead units, layer by layer.

    A unit is a channel or feature; it is dead if, over all samples and places of the batch, it is never
    more than a millionth of the layer's largest value. Watched are modules that hold parameters of their
    own and torch's activations, not functions that a model calls by itself.

    Args:
        model: is called once.
        inputs: its arguments.

    Returns:
        ``mean``, ``std``, ``max`` and ``dead`` of each such module.

    Example:
        >>> statistics = activation_statistics(torch.nn.ReLU(), torch.tensor([[-1.0, 2.0], [-3.0, 6.0]]))
        >>> {name: round(value, 4) for name, value in statistics["model"].items()}
        {'mean': 2.0, 'std': 2.4495, 'max': 6.0, 'dead': 0.5}
    """
    activations = Activations(model)
    with activations.watching():
        model(*inputs)
    found = activations.by_layer(torch.cat(activations.take()).double().cpu().numpy())
    return {name: {what: values[name] for what, values in found.items()} for name in found["mean"]}


class Activations:
    """Hooks that are there for a watched step only, so that the others cost nothing.

    Args:
        model: whose layers are watched.
    """

    def __init__(self, model: nn.Module) -> None:
        self.watched = [
            (name or "model", module) for name, module in model.named_modules() if _is_layer(module)
        ]
        self.found: list[tuple[str, int, int]] = []
        self.numbers: list[Tensor] = []
        self.axis = 1

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Takes in every call of every layer inside."""
        self.found, self.numbers, self.axis = [], [], 1
        handles = [
            module.register_forward_hook(partial(self._note, name)) for name, module in self.watched
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def take(self) -> list[Tensor]:
        """What was measured, where it is, to be transferred at once."""
        return self.numbers

    def by_layer(self, numbers: Numbers) -> dict[str, dict[str, float]]:
        """``mean``, ``std``, ``max`` and ``dead``, each by layer; one that was called more than once
        (accumulated batches, shared modules) counts over all its calls.

        Args:
            numbers: what was taken, in one row.
        """
        moments: dict[str, Numbers] = {}
        largest: dict[str, float] = {}
        for name, entries, units in self.found:
            mean, deviation, peaks = numbers[0], numbers[1], numbers[2 : 2 + units]
            numbers = numbers[2 + units :]
            largest[name] = max(largest.get(name, 0.0), peak := float(peaks.max()))
            # Sums over entries, and over units; those of the squares are put together by the moments.
            square = deviation**2 + entries * mean**2
            silent = float((peaks <= SILENT * peak).sum())
            row = np.array([entries, entries * mean, square, units, silent])
            moments[name] = moments.get(name, 0.0) + row
        found: dict[str, dict[str, float]] = {what: {} for what in ("mean", "std", "max", "dead")}
        for name, row in moments.items():
            entries, total, square, units, silent = row.tolist()
            mean = total / entries
            found["mean"][name] = mean
            found["std"][name] = math.sqrt(max(0.0, square / entries - mean * mean))
            found["max"][name] = largest[name]
            found["dead"][name] = silent / units
        return found

    def _note(self, name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        values = output[0] if isinstance(output, tuple) and output else output  # of a recurrent layer
        if not isinstance(values, Tensor) or not values.numel() or not _is_number(values):
            return
        if isinstance(module, CHANNELS_FIRST):
            self.axis = 1
        elif isinstance(module, CHANNELS_LAST):
            self.axis = -1  # and what follows without saying so, an activation say, has them there too
        values = real(values.detach())
        peaks = values.abs() if values.dim() > 1 else values.abs().reshape(-1, 1)
        axis = self.axis % peaks.dim()
        mean = values.mean()
        deviation = torch.linalg.vector_norm(values - mean)
        peaks = peaks.amax([dim for dim in range(peaks.dim()) if dim != axis])
        self.found.append((name, values.numel(), len(peaks)))
        self.numbers += [torch.stack((mean, deviation)), peaks]


def _is_layer(module: nn.Module) -> bool:
    leaf = next(module.children(), None) is None
    return leaf and (isinstance(module, ACTIVATIONS) or next(module.parameters(), None) is not None)


def _is_number(values: Tensor) -> bool:
    return values.is_floating_point() or values.is_complex()


def real(values: Tensor) -> Tensor:
    """The same in float32 at least; complex numbers by their modulus."""
    values = values.abs() if values.is_complex() else values
    return values if values.dtype == torch.float64 else values.float()

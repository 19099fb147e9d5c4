"""Batches whose inputs are not what they should be."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import torch
from torch import Tensor

from trainer import checks
from trainer.data.tensors import FAULT, Batch, Data, seeded_generator
from trainer.faults.fault import NoFault, checked_share
from trainer.metrics import Metric
from trainer.schedulers import Horizon


class NanBatch(NoFault):
    """x₀ ← NaN: one entry of the inputs of some batches.

    Args:
        share: of the run's batches that are spoiled, at least one; 0 < share <= 1.
        seed: of which.

    Raises:
        ValueError: for an argument out of range.
    """

    def __init__(self, share: float = 0.01, seed: int = 0) -> None:
        self.share = checked_share(share)
        self.seed = checks.whole("seed", seed)

    def data(self, data: Data, horizon: Horizon) -> Data:
        """The data with NaN as the first entry of such batches.

        Raises:
            ValueError: if the inputs are whole numbers.
        """
        return SpoiledData(data, _some_batches(data, horizon, self.share, self.seed), _with_nan)


class OutlierBatch(NoFault):
    """x ← factor · x: all inputs of some batches.

    Args:
        share: of the run's batches that are spoiled, at least one; 0 < share <= 1.
        factor: what their inputs are multiplied by.
        seed: of which.

    Raises:
        ValueError: for an argument out of range.
    """

    def __init__(self, share: float = 0.01, factor: float = 1e3, seed: int = 0) -> None:
        self.share = checked_share(share)
        self.factor = checks.number("factor", factor)
        self.seed = checks.whole("seed", seed)

    def data(self, data: Data, horizon: Horizon) -> Data:
        """The data with the inputs of such batches multiplied.

        Raises:
            ValueError: if the inputs are whole numbers.
        """
        hit = _some_batches(data, horizon, self.share, self.seed)
        return SpoiledData(data, hit, lambda inputs: inputs * self.factor)


class SpoiledData:
    """Data with the inputs of some training batches replaced.

    Args:
        clean: the data.
        hit: which batches, counted from the beginning of the run.
        spoil: makes their inputs from the clean ones.
    """

    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    batches_per_epoch: int
    validates: bool
    metrics: Mapping[str, Metric]

    def __init__(self, clean: Data, hit: frozenset[int], spoil: Callable[[Tensor], Tensor]) -> None:
        self.clean, self.hit, self.spoil = clean, hit, spoil

    def __getattr__(self, name: str) -> Any:
        """Whatever else is asked of it, it is the clean data."""
        return getattr(self.clean, name)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from number ``start`` on."""
        first = epoch * self.clean.batches_per_epoch + start
        for number, (inputs, targets) in enumerate(self.clean.batches(epoch, start), first):
            yield (self.spoil(inputs) if number in self.hit else inputs), targets

    def validation(self) -> Iterator[Batch]:
        """The validation samples, clean."""
        return self.clean.validation()

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Moves the clean data."""
        self.clean = self.clean.to(device, dtype)
        return self


def _some_batches(data: Data, horizon: Horizon, share: float, seed: int) -> frozenset[int]:
    """Numbers of batches, drawn without replacement from those that the run certainly comes to."""
    inputs, _ = next(data.batches(0))
    if not (inputs.is_floating_point() or inputs.is_complex()):
        raise ValueError(
            f"inputs must be floating-point to be spoiled, got {inputs.dtype}; use fault=lr_spike or "
            "fault=label_noise"
        )
    # Of an epoch that max_steps cuts short, a step takes at least one batch.
    epochs, rest = divmod(horizon.steps, horizon.per_epoch)
    batches = epochs * data.batches_per_epoch + rest
    order = torch.randperm(batches, generator=seeded_generator(FAULT, seed))
    return frozenset(order[: max(1, round(share * batches))].tolist())


def _with_nan(inputs: Tensor) -> Tensor:
    inputs = inputs.clone()
    inputs[(0,) * inputs.dim()] = math.nan
    return inputs

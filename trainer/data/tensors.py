"""Data held in memory, and the protocol that every data source follows."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from operator import itemgetter
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor

from trainer import checks
from trainer.metrics import Metric

Targets = Tensor | tuple[Tensor, ...]  # a tuple: (target, mask), say
Batch = tuple[Tensor, Targets]
Transform = Callable[[Tensor, Any, torch.Generator], Batch]

ORDER, SAMPLES, SPLIT, NOISE, ITEM, FAULT, PROCESS = range(1, 8)


class Data(Protocol):
    """What the loop asks of data. Shapes are those of one sample, without the batch axis; ``validates``
    says whether there is anything to validate on. A ``provenance`` beside these, a mapping of plain
    values, goes into the summary: where the samples come from, how they were split and scaled."""

    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    batches_per_epoch: int
    validates: bool
    metrics: Mapping[str, Metric]

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]: ...
    def validation(self) -> Iterator[Batch]: ...
    def to(self, device: torch.device, dtype: torch.dtype) -> Self: ...


class TensorData:
    """Inputs and targets that fit into memory, served by index.

    The order of epoch e is a permutation drawn from (seed, e); the whole epoch is gathered once and
    its batches are views of it, which is several times cheaper than a per-sample `DataLoader`.

    Args:
        train: inputs (N, …) and targets (N, …), of any type of number; several targets as a tuple.
        val: inputs (M, …) and targets (M, …); M may be 0.
        batch_size: samples per batch, >= 1.
        seed: of the order and of the transform's noise.
        drop_last: leave out the last batch of an epoch when it is smaller than the others.
        transform: ``(inputs, targets, generator) -> (inputs, targets)``, called once an epoch on the
            whole shuffled epoch; all its randomness has to come from the generator.
        metrics: by name, averaged over the validation samples and recorded as ``val/<name>``.
        input_shape: of one input; that of the training inputs unless a transform changes it.
        output_shape: what a model should return for one sample; that of the (first) target unless said.
        provenance: plain values on where the samples come from, how they were split and scaled.

    Raises:
        ValueError: for arguments out of range, no samples, non-finite inputs (the sample is named),
            or too few samples for one batch under ``drop_last``.
    """

    def __init__(
        self,
        train: Batch,
        val: Batch,
        *,
        batch_size: int,
        seed: int = 0,
        drop_last: bool = False,
        transform: Transform | None = None,
        metrics: Mapping[str, Metric] | None = None,
        input_shape: tuple[int, ...] | None = None,
        output_shape: tuple[int, ...] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self.batch_size = checks.whole("batch_size", batch_size, at_least=1)
        self.seed = checks.whole("seed", seed)
        self.train, self.val = train, val
        self.transform = transform
        self.validates = len(val[0]) > 0
        self.metrics = dict(metrics or {})
        _check_samples("training", train)
        _check_samples("validation", val, may_be_empty=True)
        if transform is None:  # else these may be filled in by it
            _check_not_all_masked(train)
        count = len(train[0])
        self.provenance = {"train": count, "val": len(val[0]), **(provenance or {})}
        self.input_shape = tuple(train[0].shape[1:]) if input_shape is None else input_shape
        self.output_shape = tuple(first(train[1]).shape[1:]) if output_shape is None else output_shape
        self.batches_per_epoch = count // batch_size if drop_last else -(-count // batch_size)
        if self.batches_per_epoch == 0:
            raise ValueError(
                f"batch_size must be <= {count}, the number of training samples, when the last "
                f"incomplete batch is dropped, got {batch_size}"
            )

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from number ``start`` on, each (B, …) and (B, …)."""
        inputs, targets = self._shuffled(epoch)
        for begin in range(start * self.batch_size, len(inputs), self.batch_size):
            if begin >= self.batches_per_epoch * self.batch_size:
                return
            rows = slice(begin, begin + self.batch_size)
            yield inputs[rows], each(itemgetter(rows), targets)

    def validation(self) -> Iterator[Batch]:
        """The validation samples in their own order, in batches eight times the training size."""
        size = 8 * self.batch_size
        for begin in range(0, len(self.val[0]), size):
            rows = slice(begin, begin + size)
            yield self.val[0][rows], each(itemgetter(rows), self.val[1])

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Moves the tensors; floating-point ones also change to ``dtype``, complex ones to its kind."""
        self.train, self.val = place(self.train, device, dtype), place(self.val, device, dtype)
        return self

    def _shuffled(self, epoch: int) -> Batch:
        generator = seeded_generator(ORDER, self.seed, epoch)
        order = torch.randperm(len(self.train[0]), generator=generator)
        order = order.to(self.train[0].device)
        inputs, targets = each(itemgetter(order), self.train)
        if self.transform is None:
            return inputs, targets
        return self.transform(inputs, targets, generator)


def each(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """What the function makes of a tensor, or of each tensor in a tuple."""
    return tuple(each(function, part) for part in value) if isinstance(value, tuple) else function(value)


def first(targets: Targets) -> Tensor:
    """The tensor, or the first one of a tuple."""
    return targets[0] if isinstance(targets, tuple) else targets


def place(value: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """A tensor or a tuple of them on the device; floating-point ones in ``dtype``, complex ones in the
    complex type whose parts are, whole numbers and booleans as they are."""

    def move(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            return tensor.to(device, dtype)
        return tensor.to(device, dtype.to_complex() if tensor.is_complex() else None)

    return each(move, value)


def seeded_generator(*key: int) -> torch.Generator:
    """A CPU generator that depends on the key alone; keys that differ give uncorrelated streams.

    The first number of a key says what is drawn (see the constants of this module), so that two parts
    with the same seed never share a stream.
    """
    state = np.frombuffer(hashlib.sha256(repr(key).encode()).digest()[:8], np.uint64)
    return torch.Generator().manual_seed(int(state[0]) >> 1)


def _check_samples(part: str, batch: Batch, may_be_empty: bool = False) -> None:
    inputs, targets = batch
    named = [("input", inputs)]
    named += [("target", target) for target in (targets if isinstance(targets, tuple) else (targets,))]
    for _, tensor in named[1:]:
        if len(inputs) != len(tensor):
            raise ValueError(
                f"{part} inputs and targets must be as many, got {len(inputs)} and {len(tensor)}"
            )
    if len(inputs) == 0 and not may_be_empty:
        raise ValueError(f"{part} data must hold at least one sample, got none")
    for name, tensor in named:
        bad = (~torch.isfinite(tensor)).flatten().nonzero()
        if len(bad):
            sample, entry = divmod(int(bad[0]), max(tensor[0].numel(), 1))
            raise ValueError(
                f"{part} {name}s must be finite, got {tensor.flatten()[bad[0]].item()} in sample "
                f"{sample}, entry {entry} ({len(bad)} in all); mend or drop such samples"
            )


def _check_not_all_masked(batch: Batch) -> None:
    targets = batch[1] if isinstance(batch[1], tuple) else ()
    if any(target.dtype == torch.bool and not target.any() for target in targets):
        raise ValueError("training targets must not all be masked: no entry of their mask is True")

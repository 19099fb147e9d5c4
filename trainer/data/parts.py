"""The rows of every batch that one of several processes works on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from operator import itemgetter
from typing import Any, Self

import torch

from trainer.data.tensors import Batch, Data, Targets, each
from trainer.metrics import Metric

Rows = Callable[[int], slice]  # of so many, those of this process


class Part(tuple[torch.Tensor, Targets]):
    """A process's rows of a batch, as a batch.

    Attributes:
        samples: of the whole batch, per process; so that this part weighs ``len(inputs) / samples``.
        whole: fetches the batch that it is a part of.
    """

    samples: float
    whole: Callable[[], Batch]


def samples_of(batch: Batch) -> float:
    """What a batch counts for among those of a step."""
    return batch.samples if isinstance(batch, Part) else len(batch[0])


def whole(batch: Batch) -> Batch:
    """The batch that all processes share."""
    return batch.whole() if isinstance(batch, Part) else batch


class OwnRows:
    """Data of which every batch holds only the rows of one process, in the order of the whole.

    Of n rows process r of N has those from ⌊rn/N⌋ up to ⌊(r+1)n/N⌋. A source that can fetch single rows
    (``rows_of_batches``, ``rows_of_validation``) is asked for these alone; of any other, batches are
    read whole and cut.

    Args:
        data: the same in every process.
        rank: r.
        size: N.
    """

    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    batches_per_epoch: int
    validates: bool
    metrics: Mapping[str, Metric]

    def __init__(self, data: Data, rank: int, size: int) -> None:
        self.data, self.rank, self.size = data, rank, size
        # Of the class: a source that wraps another passes on what it does not have itself.
        self.fetches_rows = hasattr(type(data), "rows_of_batches")

    def __getattr__(self, name: str) -> Any:
        """Whatever else is asked of it, it is the data."""
        return getattr(self.data, name)

    def rows(self, count: int) -> slice:
        """Of so many rows those of this process."""
        return slice(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The parts of one epoch from batch number ``start`` on.

        Raises:
            ValueError: if a batch has fewer rows than there are processes.
        """
        if self.fetches_rows:
            parts = self.data.rows_of_batches(self.rows, epoch, start)  # type: ignore[attr-defined]
        else:
            parts = self._cut(self.data.batches(epoch, start))
        with closing(parts):
            for number, (batch, count) in enumerate(parts, start):
                check_rows(count, self.size)
                part = Part(batch)
                part.samples, part.whole = count / self.size, partial(self._whole, epoch, number)
                yield part

    def validation(self) -> Iterator[Batch]:
        """The parts of the validation samples; batches of which this process has no row are left out."""
        if self.fetches_rows:
            yield from self.data.rows_of_validation(self.rows)  # type: ignore[attr-defined]
            return
        for batch, _ in self._cut(self.data.validation()):
            if len(batch[0]):
                yield batch

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """Moves the data."""
        self.data = self.data.to(device, dtype)
        return self

    def _cut(self, batches: Iterator[Batch]) -> Iterator[tuple[Batch, int]]:
        for batch in batches:
            count = len(batch[0])
            yield each(itemgetter(self.rows(count)), batch), count

    def _whole(self, epoch: int, number: int) -> Batch:
        return next(self.data.batches(epoch, number))


def check_rows(count: int, size: int) -> None:
    """Refuses a batch that leaves a process without a row.

    Raises:
        ValueError: naming both numbers.
    """
    if count < size:
        raise ValueError(
            f"every batch must hold a sample for each of {size} processes, got one of {count}; use "
            "another data.batch_size or fewer processes"
        )

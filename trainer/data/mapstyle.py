"""Data too large for memory, or made on the fly: any map-style `torch.utils.data.Dataset`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from typing import Any, Self

import torch
from torch.utils.data import DataLoader, Dataset

from trainer import checks
from trainer.data.tensors import ITEM, ORDER, Batch, first, place, seeded_generator
from trainer.metrics import Metric


class DataWorkerFailed(RuntimeError):
    """A process that fetches samples raised, is gone, or hangs."""


class MapStyleData:
    """Samples fetched by a `DataLoader` in an order that is a pure function of (seed, epoch).

    Whatever a sample draws from torch's generator (an augmentation, say) depends on (seed, epoch,
    index) alone, with any number of workers; so a resumed epoch goes on as it would have. Data that
    fits into memory is served several times faster by `TensorData`.

    Args:
        train: of (input, target) pairs, with a length; several targets as a tuple.
        val: likewise, or None.
        batch_size: samples per batch, >= 1.
        seed: of the order and of what samples draw.
        num_workers: processes that fetch; 0 fetches in this one.
        timeout: seconds that a batch from such a process may take; > 0.
        metrics: by name, recorded as ``val/<name>``.
        output_shape: what a model should return for one sample; that of the (first) target unless said.
        provenance: plain values on where the samples come from, how they were split and scaled.

    Raises:
        ValueError: for arguments out of range or an empty training set.
    """

    def __init__(
        self,
        train: Dataset[Batch],
        val: Dataset[Batch] | None = None,
        *,
        batch_size: int = 32,
        seed: int = 0,
        num_workers: int = 0,
        timeout: float = 15.0,
        metrics: Mapping[str, Metric] | None = None,
        output_shape: tuple[int, ...] | None = None,
        provenance: Mapping[str, Any] | None = None,
    ) -> None:
        self.train, self.val = train, val
        self.batch_size = checks.whole("batch_size", batch_size, at_least=1)
        self.seed = checks.whole("seed", seed)
        self.num_workers = checks.whole("num_workers", num_workers)
        self.timeout = checks.number("timeout", timeout, above=0)
        self.validates = val is not None
        self.metrics = dict(metrics or {})
        self.count = len(train)  # type: ignore[arg-type]
        if self.count == 0:
            raise ValueError("training data must hold at least one sample, got none")
        self.batches_per_epoch = -(-self.count // batch_size)
        held_out = 0 if val is None else len(val)  # type: ignore[arg-type]
        self.provenance = {"train": self.count, "val": held_out, **(provenance or {})}
        inputs, targets = _Seeded(train, seed, 0)[0]
        shape = tuple(torch.as_tensor(first(targets)).shape)
        self.input_shape = tuple(torch.as_tensor(inputs).shape)
        self.output_shape = shape if output_shape is None else output_shape
        self.placement = (torch.device("cpu"), torch.float32)

    def batches(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from number ``start`` on, each (B, …) and (B, …)."""
        with closing(self.rows_of_batches(_all, epoch, start)) as batches:
            for batch, _ in batches:
                yield batch

    def rows_of_batches(
        self, rows: Callable[[int], slice], epoch: int, start: int = 0
    ) -> Generator[tuple[Batch, int]]:
        """`batches`, of each of which only some rows are fetched; each with the number of all its rows.

        Args:
            rows: which, of so many; at least one.
            epoch: counted from 0.
            start: the first batch.
        """
        order = torch.randperm(self.count, generator=seeded_generator(ORDER, self.seed, epoch))
        groups = [group.tolist() for group in order.split(self.batch_size)][start:]
        own = [group[rows(len(group))] for group in groups]
        with closing(self._load(_Seeded(self.train, self.seed, epoch + 1), own)) as batches:
            for group, batch in zip(groups, batches, strict=True):
                yield batch, len(group)

    def validation(self) -> Iterator[Batch]:
        """The validation samples in their own order."""
        return self.rows_of_validation(_all)

    def rows_of_validation(self, rows: Callable[[int], slice]) -> Iterator[Batch]:
        """`validation`, of each batch of which only some rows are fetched, and none without any."""
        if self.val is not None:
            order = torch.arange(len(self.val))  # type: ignore[arg-type]
            groups = [group.tolist() for group in order.split(self.batch_size)]
            own = [group[rows(len(group))] for group in groups]
            yield from self._load(_Seeded(self.val, self.seed, 0), [group for group in own if group])

    def to(self, device: torch.device, dtype: torch.dtype) -> Self:
        """From now on every batch comes on this device, floating-point values in this dtype."""
        self.placement = (device, dtype)
        return self

    def _load(self, dataset: Dataset[Batch], groups: list[list[int]]) -> Generator[Batch]:
        generator = torch.Generator().manual_seed(self.seed)  # or it would draw from the global one
        loader = DataLoader(
            dataset,
            batch_sampler=groups,
            num_workers=self.num_workers,
            generator=generator,
            timeout=self.timeout if self.num_workers else 0,
        )
        fetched = iter(loader)
        try:
            while (batch := self._next(fetched)) is not None:
                inputs, targets = batch
                several = tuple(targets) if isinstance(targets, list) else targets  # it was a tuple
                yield place((inputs, several), *self.placement)
        finally:  # a traceback would keep the iterator, and with it the processes
            _end(fetched)

    def _next(self, fetched: Iterator[Batch]) -> Batch | None:
        try:
            return next(fetched, None)
        except Exception as error:
            told = str(error).strip()
            if not self.num_workers:
                raise
            if told.startswith("Caught "):
                why = f"raised {told.splitlines()[-1]}"
            elif isinstance(error, OSError | EOFError) or "exited" in told or "killed by signal" in told:
                why = "exited or was killed, perhaps for want of memory"
            else:
                why = f"gave nothing for {self.timeout:g} s"
            remedy = "num_workers=0 fetches in this process"
            raise DataWorkerFailed(f"a data worker {why}; {remedy}") from error


class _Seeded(Dataset[Batch]):
    """A dataset whose item is drawn with torch's generator seeded by (seed, epoch, index)."""

    def __init__(self, dataset: Dataset[Any], seed: int, epoch: int) -> None:
        self.dataset, self.seed, self.epoch = dataset, seed, epoch

    def __getitem__(self, index: int) -> Batch:
        with torch.random.fork_rng(devices=[]):
            key = seeded_generator(ITEM, self.seed, self.epoch, index).initial_seed()
            torch.manual_seed(key)
            item: Batch = self.dataset[index]
            return item


def _end(fetched: Any) -> None:
    """Ends the processes that fetch, if there are any."""
    if not hasattr(fetched, "_shutdown_workers"):
        return
    if fetched._worker_pids_set:  # or the signal that one has died makes torch raise in the midst of it
        torch._C._remove_worker_pids(id(fetched))
        fetched._worker_pids_set = False
    fetched._shutdown_workers()


def _all(count: int) -> slice:
    return slice(count)

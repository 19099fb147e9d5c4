"""How several processes find each other, exchange numbers, and say why that has failed."""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore

from trainer.distributed import torchrun
from trainer.distributed.peers import START, ProcessLost, introduce, lost
from trainer.distributed.torchrun import Place


class Meeting:
    """What the processes that torchrun started have to say to each other; alone, nobody is asked.

    They find each other at the first word between them, not before.

    Args:
        place: where this process stands.
        backend: "gloo", "nccl", or "auto": nccl on CUDA, gloo elsewhere.
        timeout: seconds that a process waits for the others.

    Attributes:
        on: the device that numbers are exchanged on.
    """

    def __init__(self, place: Place, backend: str, timeout: float) -> None:
        self.place, self.backend, self.timeout = place, backend, timeout
        self.rank, self.size = place.rank, place.size
        self.on = torch.device("cpu")
        self.table: PrefixStore | None = None

    def gathered(self, row: Tensor) -> Tensor:
        """(k,) of each process as (N, k), the same bits in all of them."""
        self.meet()
        rows = [torch.empty_like(row) for _ in range(self.size)]
        dist.all_gather(rows, row)
        return torch.stack(rows)

    def averaged(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The mean of each over all processes; the tensors themselves stay as they are."""
        if self.size == 1 or not tensors:
            return list(tensors)
        flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
        self.meet()
        dist.all_reduce(flat)
        parts = flat.div_(self.size).split([tensor.numel() for tensor in tensors])
        return [p.view_as(t).to(t.dtype) for p, t in zip(parts, tensors, strict=True)]

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """The first process goes through the block alone, then the others."""
        if self.size > 1:
            self.meet()
            if self.rank != 0:
                dist.barrier()
        try:
            yield
        finally:
            if self.size > 1 and self.rank == 0:
                dist.barrier()

    def told(self, folder: str) -> str:
        """The run folder of the first process, or "" where it has none; after a restart it is known."""
        table = self._table()
        if self.rank == 0:
            table.set("folder", folder)
            if folder:
                # All have come, so none of this start takes it for what an earlier one left.
                table.underlying_store.set(torchrun.FOLDER, folder)
        return os.fsdecode(table.get("folder"))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Says why an exchange fails, in our words.

        Raises:
            ProcessLost: if another process is gone.
            RuntimeError: as it is, or if the others would wait for a gradient that there is not.
        """
        try:
            yield
        except RuntimeError as error:
            if "find_unused_parameters" in str(error):
                raise RuntimeError(
                    "a parameter had no gradient in a step, for which the processes would wait; "
                    "trainer.processes.find_unused=true looks for such parameters"
                ) from error
            if self.size == 1 or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
                raise
            raise ProcessLost(lost(self.table, self.rank, self.size, self.timeout)) from None

    def meet(self) -> None:
        """Waits for the others, the first time."""
        if dist.is_initialized():
            return
        backend = "nccl" if self.on.type == "cuda" else "gloo"
        if self.on.type == "cuda":
            torch.cuda.set_device(self.on)
        dist.init_process_group(
            backend if self.backend == "auto" else self.backend,
            store=self._table(),
            rank=self.rank,
            world_size=self.size,
            timeout=timedelta(seconds=self.timeout),
        )
        atexit.register(dist.destroy_process_group)

    def _table(self) -> PrefixStore:
        if self.table is None:
            self.table = introduce(torchrun.store(START), self.rank, self.size)
        return self.table

"""Several processes that train one model: each with its own rows of a batch, all with the same step."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from trainer import checks
from trainer.data.parts import OwnRows, samples_of
from trainer.data.tensors import PROCESS, Batch, Data, seeded_generator
from trainer.distributed.meeting import Meeting
from trainer.distributed.normalization import normalizes_alone, synchronized
from trainer.distributed.sharding import Sharding
from trainer.distributed.torchrun import Place
from trainer.precision import pick_device
from trainer.rng import seed_everything
from trainer.snapshot import Snapshots
from trainer.transaction import Transaction

BACKENDS = ("auto", "gloo", "nccl")


class Processes:
    """The processes that torchrun started, or this one alone; alone, nothing here does anything.

    N processes that each take 1/N of every batch follow one process that takes the whole: the loss is a
    mean over the batch, so its gradient is the mean of theirs, weighted by rows. After the backward pass
    all have the same gradient; measure, judge and clip it alike; and take the same step.

    Args:
        backend: "gloo", "nccl", or "auto": nccl on CUDA, gloo elsewhere.
        timeout: seconds that a process waits for the others, > 0.
        find_unused: look, in every step, for parameters that the loss does not depend on; those that are
            cut up need not be looked for.
        shard: cut parameters, gradients and moments up among the processes, see `Sharding`; else each
            has all of them.
        place: where this process stands; None is alone.

    Raises:
        ValueError: for an argument out of range.
    """

    def __init__(
        self,
        backend: str = "auto",
        timeout: float = 25.0,
        find_unused: bool = False,
        shard: bool = False,
        place: Place | None = None,
    ) -> None:
        self.backend = checks.choice("backend", backend, BACKENDS)
        self.find_unused = bool(find_unused)
        self.place = place or Place()
        self.rank, self.size = self.place.rank, self.place.size
        self.meeting = Meeting(self.place, backend, checks.number("timeout", timeout, above=0))
        self.asked_to_stop: Tensor | None = None
        self.shards = bool(shard) and self.size > 1
        self.sharding: Sharding | None = None

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """The device of that name; of several CUDA devices, each process of a machine takes its own.

        Raises:
            ValueError: if there is none, or the backend cannot use it.
        """
        any_cuda = name == "cuda" or (name == "auto" and torch.cuda.is_available())
        device = pick_device(f"cuda:{self.place.local}" if any_cuda and self.size > 1 else name)
        if self.backend == "nccl" and device.type != "cuda":
            raise ValueError("backend must be gloo or auto where device=cpu, got 'nccl'")
        self.meeting.on = device
        return device

    def own(self, data: Data) -> Data:
        """The rows of every batch that are this process's."""
        return data if self.size == 1 else OwnRows(data, self.rank, self.size)

    def seed(self, seed: int, step: int) -> None:
        """Before a step: each of several processes draws a stream of its own, a function of (seed, step,
        rank). So there is no generator of each to save, and any number can go on from a checkpoint."""
        if self.size > 1:
            key = seeded_generator(PROCESS, seed, step, self.rank).initial_seed()
            seed_everything(key % 2**32)

    @contextmanager
    def sharing(self, model: nn.Module, step: int, snapshots: Snapshots) -> Iterator[nn.Module]:
        """Inside, what to call in the place of the model, so that its gradients are those of all
        processes, and BatchNorm normalizes by all rows.

        Args:
            model: on its device, or its compiled form.
            step: where the run stands.
            snapshots: of model and optimizer.

        Raises:
            ValueError: if the others stand elsewhere.
        """
        if self.size == 1:
            yield model
            return
        self._check_step(step)
        if self.shards:
            parts = snapshots.parts
            self.sharding = self.sharding or Sharding(parts["model"], parts["optimizer"], self.meeting)
            self.sharding.begin(snapshots)
            model = self.sharding.running
        with synchronized(model, self.meeting):
            yield model if self.shards else self._averaging(model)
        if self.sharding is not None:
            self.sharding.gather()

    def _averaging(self, model: nn.Module) -> nn.Module:
        with warnings.catch_warnings(action="ignore", category=FutureWarning):  # the newest torch's
            return DistributedDataParallel(
                model,
                broadcast_buffers=False,  # rank 0's are not all that counts: see `even_out`
                gradient_as_bucket_view=True,
                find_unused_parameters=self.find_unused,
            )

    def _check_step(self, step: int) -> None:
        row = torch.tensor([float(step)], dtype=torch.float64, device=self.meeting.on)
        steps = sorted({int(value) for value in self.meeting.gathered(row).flatten().tolist()})
        if len(steps) > 1:
            raise ValueError(
                f"resume must lead all processes to one step, got {steps}: each of them has to see the "
                "run folder"
            )

    def alone(self, model: Any, more: bool) -> AbstractContextManager[None]:
        """Goes around forward and backward; where there are more to come in this step, the gradients
        wait for those."""
        if self.sharding is not None:
            model.set_requires_gradient_sync(not more)
        return model.no_sync() if more and isinstance(model, DistributedDataParallel) else nullcontext()

    def gathered(self) -> AbstractContextManager[None]:
        """Inside, the model is whole in every process."""
        return nullcontext() if self.sharding is None else self.sharding.gathered()

    def state(self, state: dict[str, Any]) -> dict[str, Any]:
        """The state of a run as one process would have it; see `Sharding.state`."""
        if self.sharding is None:
            return state
        with self.meeting.watching():
            return self.sharding.state(state)

    def finite(self, parameters: Sequence[Tensor]) -> bool:
        """Whether all their entries are, in those parts too that other processes have."""
        finite = all(torch.isfinite(parameter).all() for parameter in parameters)
        if self.sharding is None:
            return finite
        with self.meeting.watching():
            return sum(self.added([0.0 if finite else 1.0])) == 0

    def led(self, decision: bool, doubtful: bool) -> bool:
        """What the first process has decided, where all have to do the same and might not."""
        if self.sharding is None or not doubtful:
            return decision
        return self.added([float(decision and self.leads)]) == [1.0]

    def agreed(
        self,
        loss: Tensor,
        terms: Mapping[str, Tensor],
        norm: Tensor,
        buffers: Tensor | None,
        noted: int | None,
    ) -> tuple[Tensor, Mapping[str, Tensor], Tensor, Tensor | None]:
        """What all judge by, in one exchange: mean loss and terms, one norm, the largest buffer.

        Args:
            loss: of the own rows, times their weight.
            terms: likewise.
            norm: of the gradient, which is that of all already.
            buffers: the largest entry of the own ones; None without any.
            noted: a signal that this process has received; see `signal`.
        """
        if self.size == 1:
            return loss, terms, norm, buffers
        means = [loss, *terms.values()]
        largest = norm.new_zeros(()) if buffers is None else buffers
        asked = norm.new_full((), float(noted or 0))
        row = torch.stack([value.detach().double() for value in (*means, norm, largest, asked)])
        rows = self.meeting.gathered(row)
        self.asked_to_stop = rows[:, -1].max()
        means = list(rows[:, : len(means)].mean(0).to(loss.dtype))
        # That of rank 0 for all: were their processors to round otherwise, so might their verdicts.
        norm = rows[0, -3].to(norm.dtype)
        largest = rows[:, -2].max().to(largest.dtype)
        named = dict(zip(terms, means[1:], strict=True))
        return means[0], named, norm, None if buffers is None else largest

    def signal(self, noted: int | None, wait: bool) -> int | None:
        """The signal to stop at, at the same step in all processes: one that any of them had received
        when it began the last step.

        Args:
            noted: what this process has received, which is enough where it is alone.
            wait: whether a device may be waited for; if it must and may not be, the answer is None.
        """
        if self.size == 1:
            return noted
        asked = self.asked_to_stop
        return None if asked is None or not (asked.is_cpu or wait) else int(asked)

    def even_out(self, batches: Sequence[Batch], transaction: Transaction) -> None:
        """After a step: each buffer changes by the mean of what the processes changed it by.

        Args:
            batches: of the step, by whose rows the processes weigh.
            transaction: holds the buffers as they are, and as they were, the same in all processes.
        """
        if self.size == 1 or not transaction.watched:
            return
        buffers, before = transaction.watched, transaction.earlier
        weight = sum(len(inputs) for inputs, _ in batches) / sum(map(samples_of, batches))
        changes = [(now - then) * weight for now, then in zip(buffers, before, strict=True)]
        for buffer, then, change in zip(buffers, before, self.meeting.averaged(changes), strict=True):
            torch.add(then, change, out=buffer)

    def added(self, values: Sequence[Tensor | float]) -> list[float]:
        """The sum of each over all processes, on the host."""
        on = self.meeting.on
        row = torch.stack([torch.as_tensor(v, dtype=torch.float64, device=on) for v in values])
        total = row if self.size == 1 else self.meeting.gathered(row).sum(0)
        return [float(value) for value in total.tolist()]

    def notes(self, model: nn.Module) -> list[str]:
        """What is to be said before several processes train the model."""
        found = []
        if self.size > 1 and any(map(normalizes_alone, model.modules())):
            found.append(
                f"a BatchNorm with a forward of its own normalizes by the rows of each of {self.size} "
                "processes, so their number changes the result"
            )
        return found

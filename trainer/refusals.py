"""Refused steps, kept in the run folder so that ``task=replay`` can find out why."""

from __future__ import annotations

import re
import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainer import checks
from trainer.checkpoint import save
from trainer.data.parts import whole
from trainer.data.tensors import Batch, each
from trainer.distributed.sharding import Sharding
from trainer.guard import Guard, Off
from trainer.scaler import Scaler
from trainer.snapshot import size_of

NAME = re.compile(r"step-(\d{8,})\.pt")


@dataclass(frozen=True, slots=True)
class Pending:
    """A step whose verdict is not known yet."""

    batches: Sequence[Batch]
    place: dict[str, int]
    generators: list[Tensor]
    scale: Tensor | None


class Refusals:
    """Keeps what a step was made of, for some of those that the guard refused.

    That is its batches, the states of torch's generators and the loss scale before it, the model and the
    loss with their buffers, and the guard, by whose limits it was refused. Of refused steps in a row the
    first alone is kept, whose state the others share. All but the last place are taken by the first that
    come; the last is that of the latest, which waits in memory and is written when the run ends. A file
    has the form of a checkpoint and is read as one.

    Args:
        keep: how many files at most; 0 keeps none.
        budget_mb: MiB that one may take; one that is larger is not kept.

    Raises:
        ValueError: for a number out of range.
    """

    def __init__(self, keep: int = 3, budget_mb: float = 256) -> None:
        self.keep = checks.whole("keep", keep)
        self.budget = checks.number("budget_mb", budget_mb, above=0) * 2**20
        self.folder: Path | None = None
        self.modules: Mapping[str, nn.Module] = {}
        self.guard: Guard | None = None
        self.scaler: Scaler | None = None
        self.sharding: Sharding | None = None
        self.pending: deque[Pending] = deque()
        self.latest: dict[str, Any] | None = None

    def open(
        self,
        folder: Path | None,
        modules: Mapping[str, nn.Module],
        guard: Guard,
        scaler: Scaler | None = None,
        sharding: Sharding | None = None,
    ) -> None:
        """Before the first step.

        Args:
            folder: the run folder; without one nothing is kept.
            modules: model and loss, by name.
            guard: which refuses.
            scaler: of the loss; None for none.
            sharding: of a model that is cut up, which all processes have to put together for the one
                that has the folder.
        """
        fits = sharding is None or sharding.nbytes <= self.budget
        wanted = self.keep and fits and not isinstance(guard, Off)
        self.folder = folder / "refused" if folder is not None and wanted else None
        self.modules, self.guard, self.scaler = modules, guard, scaler
        self.sharding = sharding if wanted else None
        self.forget()

    def begin(self, batches: Sequence[Batch], step: int, epoch: int, batch: int) -> None:
        """Before the forward pass of a step; copies what changes; the rest is there later."""
        if self.folder or self.sharding:
            place = {"step": step, "epoch": epoch, "batch": batch}
            scale = None if self.scaler is None else self.scaler.scale.clone()
            self.pending.append(Pending(batches, place, _generators(batches), scale))

    def settle(self, loss: float, norm: float, refused: bool, buffers: float) -> None:
        """The verdict on the oldest step that has none, before the guard counts it.

        Where the device runs ahead of the host, steps have been taken since, and the weights that are
        kept are later ones.
        """
        if not self.pending:
            return
        step = self.pending.popleft()
        if not refused or self.guard is None or self.guard.consecutive:
            return
        kept = {} if self.folder is None else self.modules
        with self.sharding.gathered() if self.sharding else nullcontext():
            modules = {name: _plain(module.state_dict()) for name, module in kept.items()}
        if self.folder is None:
            return
        numbers = {"loss": loss, "norm": norm, "buffers": buffers, "later": len(self.pending)}
        refusal = {
            **step.place,
            **numbers,
            "batches": [list(_plain(whole(batch))) for batch in step.batches],
            "generators": step.generators,
            "modules": modules,
            "guard": self.guard.state_dict(),
            "scale": None if step.scale is None else step.scale.item(),
        }
        if size_of(refusal) > self.budget:
            return
        if len(refused_steps(self.folder)) < self.keep - 1:
            self._write(refusal)
        else:
            self.latest = refusal

    def forget(self) -> None:
        """What has no verdict by now never gets one."""
        self.pending.clear()

    def close(self) -> None:
        """At the end of the run: writes the latest, in the place of the latest of an earlier part."""
        if self.latest is None or self.folder is None:
            return
        for path in refused_steps(self.folder)[self.keep - 1 :]:
            path.unlink()
        self._write(self.latest)
        self.latest = None

    def _write(self, refusal: dict[str, Any]) -> None:
        assert self.folder is not None
        try:
            self.folder.mkdir(exist_ok=True)
            save(self.folder / f"step-{refusal['step']:08d}.pt", refusal)
        except OSError as error:
            warnings.warn(f"a refused step is not kept: {error}; training goes on", stacklevel=2)


def refused_steps(folder: Path) -> list[Path]:
    """The files of a folder, the first step first."""
    found = [path for path in folder.glob("step-*.pt") if NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.stem.removeprefix("step-")))


def _generators(batches: Sequence[Batch]) -> list[Tensor]:
    device = batches[0][0].device
    on_device = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *on_device]


def _plain(value: Any) -> Any:
    """Copies on the CPU; a view would take the memory it is a view of into the file."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | Tensor):
        return each(lambda tensor: tensor.detach().cpu().clone(), value)
    return value

"""What happened in each step, kept where it is until a log step reads it in one transfer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.clipping import Clipped, known_to_host
from trainer.clipping.norms import SLACK
from trainer.spikes import SpikeScore

Rows = NDArray[np.float64]


class Meter:
    """Collects a row per step and turns the rows of one log interval into its record.

    A step's numbers, the guard's verdict among them, stay where they are and are read together: on a GPU
    each ``.item()`` is a wait.
    """

    def __init__(self) -> None:
        self.terms: tuple[str, ...] | None = None
        self.threshold: Tensor | float | None = None
        self.pending: list[Tensor | float] = []
        self.unread: list[Rows] = []  # those that the host has had from the beginning
        self.buffers: list[float] = []
        self.settled: list[Rows] = []

    def add(
        self,
        loss: Tensor,
        norm: Tensor,
        clip: Clipped,
        refused: Tensor | float,
        terms: Mapping[str, Tensor],
        buffers: Tensor | None = None,
    ) -> None:
        """One step: loss, gradient norm before clipping, what the clip did, the verdict (0 is a commit),
        the terms, the largest buffer."""
        after: Tensor | float = norm if clip.norm is None else clip.norm
        if isinstance(clip.coefficient, float):  # read now: a float needs no kernel to multiply
            after = norm.item() * clip.coefficient
        elif clip.coefficient is not None:
            after = norm * clip.coefficient
        verdict = refused if isinstance(refused, Tensor) else float(refused)
        largest = 0.0 if buffers is None else buffers
        self.pending += (verdict, loss, norm, after, *terms.values(), largest)
        if self.terms is None:
            self.terms = tuple(terms)
        elif self.terms != tuple(terms):
            raise ValueError(
                f"a loss must return the same terms in every step, got {list(terms)} after "
                f"{list(self.terms)}"
            )
        self.threshold = self.threshold if clip.threshold is None else clip.threshold

    def add_accepted(self, rows: Rows, terms: tuple[str, ...]) -> None:
        """Committed steps, read already: 0, loss, norm before, norm after, terms, largest buffer."""
        self.terms = self.terms or terms
        self._fetch()
        self.unread.append(rows)

    def read(self) -> Rows:
        """The rows added since the last read, one transfer: (steps, 4 + terms) float64.

        Columns: refused, loss, norm before, norm after, then the terms. ``buffers`` then holds the
        largest buffer of each of these steps.
        """
        if isinstance(self.threshold, Tensor):
            self.threshold = self.threshold.item()
        self._fetch()
        rows = np.concatenate((np.empty((0, self._width)), *self.unread))
        self.unread = []
        self.buffers, rows = rows[:, -1].tolist(), rows[:, :-1]
        self.settled += [rows] if len(rows) else []
        return rows

    def interval(self) -> dict[str, float]:
        """The record of everything read since the last call: means over the accepted steps, so that a
        refused value shows in no curve. Without an accepted step there is nothing to record."""
        rows = accepted(np.concatenate((np.empty((0, self._width - 1)), *self.settled)))
        self.settled = []
        if not len(rows):
            return {}
        _, loss, before, after, *terms = (rows.sum(axis=0) / len(rows)).tolist()
        values = {"train/loss": loss}
        values |= {f"train/loss/{name}": m for name, m in zip(self.terms or (), terms, strict=True)}
        values |= {"grad/norm": before, "grad/norm_max": float(rows[:, 2].max())}
        values |= {"grad/norm_clipped": after, "grad/clipped": float(clipped(rows).mean())}
        if self.threshold is not None:
            values["grad/threshold"] = float(self.threshold)
        return values

    def state_dict(self) -> dict[str, Any]:
        """The interval so far, so that one that a kill cuts in two is recorded whole. All of it has to
        be read before."""
        settled = np.concatenate((np.empty((0, self._width - 1)), *self.settled))
        return {
            "terms": None if self.terms is None else list(self.terms),
            "threshold": self.threshold,
            "settled": torch.from_numpy(settled),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the interval so far."""
        self.terms = None if state["terms"] is None else tuple(state["terms"])
        self.threshold = state["threshold"]
        settled = torch.as_tensor(state["settled"], dtype=torch.float64)  # lists in files of format 1
        self.settled = [settled.numpy().copy()] if len(settled) else []

    @property
    def _width(self) -> int:
        return 5 + len(self.terms or ())

    def _fetch(self) -> None:
        if self.pending:
            self.unread.append(np.array(_read(self.pending)).reshape(-1, self._width))
            self.pending = []


def _read(values: list[Tensor | float]) -> list[float]:
    on_device = [v for v in values if isinstance(v, Tensor) and not known_to_host(v)]
    # On the CPU, stacking hundreds of scalars would cost more than reading them one by one.
    read = iter(torch.stack([v.double() for v in on_device]).tolist() if on_device else ())
    return [v if isinstance(v, float) else v.item() if known_to_host(v) else next(read) for v in values]


def accepted(rows: Rows) -> Rows:
    """The rows of the steps that were committed."""
    return rows[rows[:, 0] == 0] if len(rows) else rows


def clipped(rows: Rows) -> NDArray[np.bool_]:
    """For each row, whether the clip changed the gradient, by more than rounding."""
    return rows[:, 3] * SLACK < rows[:, 2]


class NormHistory:
    """Every accepted gradient norm of the run in bounded memory, for the closing table.

    When full, every other norm is dropped and from then on only every second, fourth, … is kept: the
    quantiles stay those of an even sample of the whole run, and the largest is tracked apart. How often
    losses and norms stood out is counted as they come, each by those before it.

    Args:
        capacity: how many norms are kept, even.
    """

    def __init__(self, capacity: int = 8192) -> None:
        self.capacity = capacity
        self.kept: list[float] = []
        self.stride = 1
        self.seen = 0
        self.clipped = 0
        self.largest = -math.inf
        self.spikes = {"loss": SpikeScore(), "grad_norm": SpikeScore()}

    def extend(self, rows: Rows) -> None:
        """Adds the accepted steps among the rows of a `Meter`; a norm that is no number is left out."""
        rows = accepted(rows)
        for column, score in enumerate(self.spikes.values(), start=1):
            score.extend(rows[:, column])
        rows = rows[np.isfinite(rows[:, 2])]
        self.clipped += int(clipped(rows).sum())
        norms = rows[:, 2]
        self.largest = float(norms.max(initial=self.largest))
        while len(norms):
            next_kept, room = -self.seen % self.stride, self.capacity - len(self.kept)
            last = next_kept + (room - 1) * self.stride  # of those that there is room for
            self.kept += norms[next_kept : last + 1 : self.stride].tolist()
            self.seen += min(last + 1, len(norms))
            norms = norms[last + 1 :]
            if len(self.kept) == self.capacity:
                self.kept = self.kept[::2]
                self.stride *= 2

    def quantile(self, q: float) -> float | None:
        """The q-quantile of the norms; None before the first."""
        return float(np.quantile(self.kept, q)) if self.kept else None

    def state_dict(self) -> dict[str, Any]:
        """All of it."""
        spikes = {name: score.state_dict() for name, score in self.spikes.items()}
        kept = torch.tensor(self.kept, dtype=torch.float64)
        return {**vars(self), "kept": kept, "spikes": spikes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores all of it."""
        for name in ("capacity", "stride", "seen", "clipped", "largest"):
            setattr(self, name, state[name])
        self.kept = torch.as_tensor(state["kept"], dtype=torch.float64).tolist()  # format 1: a list
        for name, score in self.spikes.items():
            score.load_state_dict(state["spikes"][name])

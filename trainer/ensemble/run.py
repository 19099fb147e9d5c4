"""A run that is to be trained with others, and what is common to those that are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from trainer.data.tensors import Data
from trainer.ensemble.stack import Stack
from trainer.ensemble.updates import Updates
from trainer.loop import Trainer
from trainer.record import View


@dataclass(slots=True)
class Run:
    """One of the runs that are to be trained as one.

    Attributes:
        trainer: ready to fit.
        data: what to fit; runs that share one object share its batches.
        folder: as for `Trainer.fit`.
        views: as for `Trainer.fit`.
        generators: the `rng_state` that it goes on with; empty where it begins.
        summary: afterwards; None if its own part of a step or its closing raised.
        error: what it raised then.
    """

    trainer: Trainer
    data: Data
    folder: Path | None = None
    views: Sequence[View] = ()
    generators: Mapping[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] | None = None
    error: Exception | SystemExit | None = None


@dataclass(slots=True)
class Common:
    """What the members of a stack share.

    Attributes:
        stack: their parameters, gradients and buffers.
        updates: the optimizers' steps that are taken for all.
        means: losses (under "") and terms of the present step, one () for each row.
        norms: of its gradients, by the p of the norm.
        largest: the largest buffer of each after its forward pass; None without any.
        validated: loss and metrics of each; None where each validates by itself.
    """

    stack: Stack
    updates: Updates
    means: Mapping[str, Sequence[Tensor]] = field(default_factory=dict)
    norms: Mapping[float, Sequence[Tensor]] = field(default_factory=dict)
    largest: Sequence[Tensor] | None = None
    validated: Sequence[dict[str, float]] | None = None

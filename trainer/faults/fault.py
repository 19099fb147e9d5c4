"""What every fault is, and the one that does nothing."""

from __future__ import annotations

from typing import Protocol

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from trainer import checks
from trainer.data.tensors import Data
from trainer.schedulers import Horizon, Schedule


class Fault(Protocol):
    """What goes wrong: in the data, in the schedule, or in neither. Both return what to use instead."""

    def data(self, data: Data, horizon: Horizon) -> Data: ...
    def schedule(
        self, schedule: Schedule | LRScheduler, optimizer: Optimizer, horizon: Horizon
    ) -> Schedule | LRScheduler: ...


class NoFault:
    """Nothing goes wrong."""

    def data(self, data: Data, horizon: Horizon) -> Data:
        """The same data."""
        return data

    def schedule(
        self, schedule: Schedule | LRScheduler, optimizer: Optimizer, horizon: Horizon
    ) -> Schedule | LRScheduler:
        """The same schedule."""
        return schedule


def checked_share(value: float) -> float:
    """The share, if it is more than 0 and at most 1.

    Raises:
        ValueError: otherwise.
    """
    share = checks.number("share", value, above=0, remedy="use fault=none for none")
    if share > 1:
        raise ValueError(f"share must be <= 1, got {value!r}; 1 is all of them")
    return share

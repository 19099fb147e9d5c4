"""Parts for the fault matrix: data fetched by workers, a model with buffers and dropout, faults."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, get_worker_info

from trainer.clipping import ClipByNorm, Clipped
from trainer.data.mapstyle import MapStyleData


class Drawn(Dataset[tuple[Tensor, Tensor]]):
    """Samples drawn when they are asked for; in a worker, sample 7 may kill it, hang or raise."""

    def __init__(self, count: int, fails: str | None) -> None:
        self.count, self.fails = count, fails

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if self.fails and index == 7 and get_worker_info() is not None:
            if self.fails == "raises":
                raise ValueError("sample 7 is broken")
            time.sleep(1000) if self.fails == "hangs" else os.kill(os.getpid(), signal.SIGKILL)
        x = torch.randn(10)
        return x, x.sum(0, keepdim=True)


def fetched(
    num_workers: int, fails: str | None, timeout: float, batch_size: int, seed: int = 0
) -> MapStyleData:
    """512 samples, fetched by so many processes."""
    return MapStyleData(
        Drawn(512, fails),
        Drawn(64, None),
        batch_size=batch_size,
        seed=seed,
        num_workers=num_workers,
        timeout=timeout,
    )


class Noisy(nn.Sequential):
    """Batch normalization, dropout and two layers."""

    def __init__(self, input_shape: Sequence[int], output_shape: Sequence[int], width: int) -> None:
        first = nn.Linear(*input_shape, width)
        layers = (nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(0.2), nn.Linear(width, *output_shape))
        super().__init__(first, *layers)


def failing(fails: str | None, after: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Mean squared error that fails after so many calls; see `fail`."""
    calls = 0

    def loss(predictions: Tensor, targets: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        if fails and calls > after:
            fail(fails)
        return (predictions - targets).square().mean()

    return loss


class FailingClip(ClipByNorm):
    """A clip by the norm that fails after so many calls; see `fail`. Its runs can be trained as one."""

    def __init__(self, max_norm: float, fails: str | None, after: int) -> None:
        super().__init__(max_norm)
        self.fails, self.left = fails, after

    def __call__(self, gradients: list[Tensor], norm: Tensor) -> Clipped:
        self.left -= 1
        if self.fails and self.left < 0:
            fail(self.fails)
        return super().__call__(gradients, norm)


def fail(how: str) -> None:
    """Raises, exits, asks for all the memory there is, or is killed."""
    if how == "raises":
        raise RuntimeError("the loss is broken")
    if how == "exits":
        sys.exit(7)
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    bytearray(2**62)

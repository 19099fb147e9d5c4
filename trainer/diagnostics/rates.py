"""Which learning rate: a range test."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.optim import Optimizer

from trainer import checks
from trainer.clipping import Clip
from trainer.data.tensors import Batch
from trainer.diagnostics.scratch import copied, keeping, scratch
from trainer.diagnostics.steps import Steps
from trainer.evaluation import Loss
from trainer.rng import seed_everything

Array = npt.NDArray[np.float64]
SMOOTHING = 0.9  # of the running mean that says when to stop
TOO_HIGH = 4.0  # times the best of it
WIDTH = 0.04  # σ of the Gaussian that smooths the curve, as a share of the steps


@dataclass(frozen=True, slots=True)
class Rates:
    """A learning rate range test.

    Attributes:
        lrs: the rates gone through, rising.
        losses: of the batch each was tried on, before its step.
        smoothed: their mean over neighbours.
        suggested: a rate to train with, two digits; None where no rate lowered the loss.
        ended: why it stopped.
    """

    lrs: list[float]
    losses: list[float]
    smoothed: list[float]
    suggested: float | None
    ended: str


def find_rate(
    model: nn.Module,
    loss: Loss,
    optimizer: Optimizer,
    batches: Iterable[Batch],
    *,
    clip: Clip | None = None,
    min_lr: float = 1e-6,
    max_lr: float = 10.0,
    steps: int = 150,
    accumulate: int = 1,
    precision: str = "fp32",
    seed: int = 0,
) -> Rates:
    """Trains with a rate that grows from step to step, lr_k = min·(max/min)^(k/(steps − 1)), and looks
    where the loss falls fastest (Smith 2015, arXiv 1506.01186).

    It stops where the running mean of the losses exceeds 4 times its best, or loss or gradient is not
    finite. The losses are then smoothed over their neighbours by a Gaussian of 4 % of the steps, and
    the suggestion is the rate at which this curve falls most steeply per decade, among those before its
    minimum. Groups keep the ratios of their rates. No schedule moves, and no step is refused.

    Args:
        model: in the mode that it is to train in.
        loss: ``(predictions, targets)`` to a scalar, or to ``(scalar, {term: scalar})``.
        optimizer: over their parameters.
        batches: at least steps · accumulate of them, or as many as there are.
        clip: a mode of `trainer.clipping`, bound if it wants to be; None for none.
        min_lr: the first rate, of the first group; > 0.
        max_lr: the last; > min_lr.
        steps: optimizer steps, >= 10.
        accumulate: batches per step, >= 1.
        precision: "fp32", or "bf16" or "fp16" for autocast.
        seed: of dropout.

    Returns:
        The curve and the suggestion. Weights, buffers, optimizer, clip and generators are to the bit
        what they were.

    Raises:
        ValueError: for an argument out of range.

    Example:
        >>> model = torch.nn.Linear(3, 1)
        >>> batches = [(torch.ones(4, 3), torch.ones(4, 1))] * 50
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> rates = find_rate(model, torch.nn.MSELoss(), optimizer, batches, steps=50)
        >>> 0.001 < rates.suggested < 1
        True
    """
    check_range(min_lr, max_lr, steps)
    lrs = np.geomspace(min_lr, max_lr, steps).tolist()
    with keeping(clip), scratch(model, loss, optimizer=optimizer):
        seed_everything(seed)
        taken = Steps(model, loss, optimizer, clip=clip, precision=precision)
        losses, ended = _sweep(taken, optimizer, lrs, batches, accumulate)
    lrs = lrs[: len(losses)]
    smoothed = _smoothed(np.array(losses), WIDTH * steps)
    return Rates(lrs, losses, smoothed.tolist(), _steepest(np.array(lrs), smoothed), ended)


def _sweep(
    steps: Steps, optimizer: Optimizer, lrs: list[float], batches: Iterable[Batch], accumulate: int
) -> tuple[list[float], str]:
    """The loss before each step, and why they end."""
    losses: list[float] = []
    running, best, feed = 0.0, math.inf, iter(batches)
    own = [group.get("initial_lr", group["lr"]) for group in optimizer.param_groups]
    for number, lr in enumerate(lrs, 1):
        some = [copied(batch) for batch in islice(feed, accumulate)]
        if not some:
            return losses, f"the batches ended after {number - 1} steps"
        for group, share in zip(optimizer.param_groups, own, strict=True):
            group["lr"] = lr * share / own[0]
        loss, norm = steps.measure(some)
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            return losses, f"loss or gradient was not finite at {lr:.2g}"
        losses.append(loss.item())
        running = SMOOTHING * running + (1 - SMOOTHING) * losses[-1]
        mean = running / (1 - SMOOTHING**number)
        best = min(best, mean)
        if mean - best > (TOO_HIGH - 1) * abs(best):
            return losses, f"the loss had risen to {TOO_HIGH:g} times its best at {lr:.2g}"
        steps.commit(norm)
    return losses, f"all {len(lrs)} rates were tried"


def check_range(min_lr: float, max_lr: float, steps: int) -> None:
    """Refuses a range that is none.

    Raises:
        ValueError: naming the argument.
    """
    checks.number("min_lr", min_lr, above=0)
    checks.number("max_lr", max_lr, above=min_lr, remedy="it has to be beyond min_lr")
    checks.whole("steps", steps, at_least=10)


def _smoothed(losses: Array, sigma: float) -> Array:
    """Each the mean of all, weighed by a Gaussian of their distance in steps."""
    places = np.arange(len(losses))
    weights = np.exp(-0.5 * ((places[:, None] - places) / sigma) ** 2)
    smoothed: Array = (weights @ losses) / weights.sum(1)
    return smoothed


def _steepest(lrs: Array, smoothed: Array) -> float | None:
    """The rate of the steepest fall before the minimum, to two digits."""
    if len(lrs) < 3:
        return None
    lowest = int(smoothed.argmin())
    slopes = np.gradient(smoothed, np.log10(lrs))[: lowest + 1]
    place = int(slopes.argmin())
    return float(f"{lrs[place]:.1e}") if slopes[place] < 0 else None

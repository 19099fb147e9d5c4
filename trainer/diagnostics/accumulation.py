"""Whether accumulated batches make the step that one large batch makes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from operator import itemgetter

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainer.clipping import Clip
from trainer.data.tensors import Batch, each
from trainer.diagnostics.finding import MOST_FAILURES, Check, Failure, index_of
from trainer.diagnostics.scratch import copied, keeping, named_parameters, scratch
from trainer.diagnostics.steps import Steps
from trainer.evaluation import Loss

Stages = dict[tuple[Tensor, str], Tensor]  # gradients by their parameter, before and after the clip


def check_accumulation(
    model: nn.Module,
    loss: Loss,
    optimizer: Optimizer,
    batch: Batch,
    *,
    clip: Clip | None = None,
    parts: int = 2,
    tolerance: float = 1e-6,
) -> Check:
    """‖c(Σ gᵢnᵢ/n) − c(g)‖∞ / ‖c(g)‖∞ < tolerance for each tensor: a gradient accumulated over parts
    of a batch and then clipped is that of the whole batch clipped, and so it is before the clip, which
    hides a wrong factor where it binds.

    In float64 and in evaluation mode, in which no sample depends on its neighbours; so this is about
    the loss, which has to be a mean over samples, and about the clip, which has to come after all parts.

    Args:
        model: takes the batch's inputs.
        loss: ``(predictions, targets)`` to a scalar, or to ``(scalar, {term: scalar})``.
        optimizer: over their parameters; it takes no step.
        batch: some samples, (inputs, targets), at least two.
        clip: a mode of `trainer.clipping`, bound if it wants to be; None for none.
        parts: into which the batch is cut, >= 2.
        tolerance: on the relative error.

    Returns:
        The check; nothing has changed.

    Example:
        >>> from trainer.clipping import ClipByNorm
        >>> model = torch.nn.Linear(3, 2)
        >>> batch = torch.randn(4, 3), torch.randn(4, 2)
        >>> optimizer, clip = torch.optim.SGD(model.parameters(), 0.1), ClipByNorm(0.1)
        >>> check_accumulation(model, torch.nn.MSELoss(), optimizer, batch, clip=clip).passed
        True
        >>> check_accumulation(model, torch.nn.MSELoss(reduction="sum"), optimizer, batch).passed
        False
    """
    count = len(batch[0])
    if count < 2:
        return Check("accumulation", limit=tolerance, skipped="the batch has a single sample")
    ends = [count * part // parts for part in range(parts + 1)]
    rows = [slice(*pair) for pair in pairwise(ends) if pair[0] < pair[1]]
    whole = copied(batch, torch.float64)
    cut = [each(itemgetter(row), whole) for row in rows]
    together, apart = (_gradients(model, loss, optimizer, clip, part) for part in ([whole], cut))
    names = {id(p): name for name, p in named_parameters(model, loss).items()}
    worst, failures = _compared(together, apart, names, tolerance)
    looked_at = f"{count} samples in {len(rows)} parts and in one, clipped"
    return Check("accumulation", looked_at, failures, worst, tolerance)


def _compared(
    together: Stages, apart: Stages, names: Mapping[int, str], tolerance: float
) -> tuple[float, tuple[Failure, ...]]:
    """The largest relative error, and a failure for each tensor that is not the same."""
    least = 1e-9 * max((g.abs().max().item() for g in together.values()), default=0.0) + 1e-300
    worst = 0.0
    failures: dict[str, Failure] = {}
    for (parameter, stage), expected in together.items():
        got = apart[parameter, stage]
        # A gradient that is 0 but for rounding is compared with those of other tensors.
        errors = (got - expected).abs().flatten() / expected.abs().max().clamp(min=least)
        place = int(errors.nan_to_num(math.inf).argmax())
        worst = max(worst, errors[place].item())
        if not errors[place] < tolerance:
            one, other = (f"{tensor.flatten()[place].item():.6g}" for tensor in (got, expected))
            values = f"{one} accumulated{stage}", f"{other} in one batch"
            name = names.get(id(parameter), "a parameter that is not the model's")
            failures.setdefault(name, Failure(name, *values, CAUSE, index_of(got, place)))
    return worst, tuple(failures.values())[:MOST_FAILURES]


def _gradients(
    model: nn.Module, loss: Loss, optimizer: Optimizer, clip: Clip | None, batches: Sequence[Batch]
) -> Stages:
    """The gradient of each parameter as it is, and clipped."""
    with keeping(clip), scratch(model, loss, optimizer=optimizer, dtype=torch.float64):
        for part in (model, loss):
            if isinstance(part, nn.Module):
                part.eval()
        steps = Steps(model, loss, optimizer, clip=clip)
        _, norm = steps.measure(batches)
        trained = [parameter for parameter in steps.parameters if parameter.grad is not None]
        pairs = list(zip(trained, steps.found, strict=True))
        raw = {(parameter, ""): gradient.clone() for parameter, gradient in pairs}
        clipped = steps.clip(steps.found, norm)
        coefficient = 1.0 if clipped.coefficient is None else clipped.coefficient
        return raw | {(parameter, " and clipped"): g * coefficient for parameter, g in pairs}


CAUSE = (
    "the loss is no mean over the samples: a sum, a mean over what a mask counts, or a statistic of the "
    "batch"
)

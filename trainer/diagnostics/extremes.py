"""Whether the loss and its gradient stay finite where inputs or predictions are extreme."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from trainer.data.tensors import Batch, first
from trainer.diagnostics.finding import MOST_FAILURES, Check, Failure, index_of
from trainer.diagnostics.scratch import copied, named_parameters, scratch
from trainer.diagnostics.trace import first_not_finite, tensors_in
from trainer.evaluation import Loss, split_loss

LARGE, SMALL = 1e4, 1e-8


def check_extremes(model: nn.Module, loss: Loss, batch: Batch, *, large: float = LARGE) -> Check:
    """Loss and gradient are finite on inputs, and at predictions, that do occur when things go wrong.

    Inputs: of zeros, alike in all samples, 10⁴ times as large, 10⁻⁸ times as large; of tokens or other
    whole numbers only the first two, the second by the largest there is. Predictions, past the model: 0,
    constant, ±10⁴, and, where the shapes agree, the targets themselves; there the root of a squared
    error has an infinite slope, say. In the dtype that model and batch have.

    Args:
        model: takes the batch's inputs.
        loss: ``(predictions, targets)`` to a scalar, or to ``(scalar, {term: scalar})``.
        batch: a few samples, (inputs, targets).
        large: the factor for large inputs, and the size of large predictions.

    Returns:
        The check; its figure is the largest loss. Nothing has changed.

    Example:
        >>> model = torch.nn.Linear(3, 2)
        >>> batch = torch.randn(4, 3), torch.randn(4, 2)
        >>> root = lambda predictions, targets: (predictions - targets).square().mean().sqrt()
        >>> check_extremes(model, torch.nn.MSELoss(), batch).passed
        True
        >>> check_extremes(model, root, batch).failures[0].name
        'loss at predictions equal to the targets'
    """
    inputs, targets = copied(batch)
    failures: list[Failure] = []
    largest = 0.0
    for what, given in _inputs(inputs, large).items():
        with scratch(model, loss):
            torch.manual_seed(0)
            value, failure = _pass(model, loss, (given, targets), what)
        largest = max(largest, value)
        failures += [failure] if failure is not None else []
    with scratch(model, loss):
        with torch.no_grad():
            predictions = model(inputs.clone())
        cases = _predictions(predictions, first(targets), large)
        for what, given in cases.items():
            value, failure = _loss_at(loss, given, copied((inputs, targets))[1], what)
            largest = max(largest, value)
            failures += [failure] if failure is not None else []
    looked_at = f"{len(_inputs(inputs, large))} kinds of inputs, {len(cases)} of predictions"
    return Check("extremes", looked_at, tuple(failures[:MOST_FAILURES]), largest, math.inf)


def _inputs(inputs: Tensor, large: float) -> dict[str, Tensor]:
    """Extreme inputs by what they are."""
    found = {"inputs of zeros": torch.zeros_like(inputs)}
    if inputs.is_floating_point() or inputs.is_complex():
        found["inputs alike in all samples"] = inputs[:1].expand_as(inputs).clone()
        found[f"inputs {large:g} times as large"] = inputs * large
        found[f"inputs {SMALL:g} times as large"] = inputs * SMALL
    else:
        most = inputs.max().item()
        found[f"inputs that are all {most}"] = torch.full_like(inputs, most)
    return found


def _predictions(predictions: Tensor, target: Tensor, large: float) -> dict[str, Tensor]:
    """Extreme predictions by what they are."""
    signs = torch.arange(predictions.numel(), device=predictions.device).view_as(predictions) % 2 * 2 - 1
    found = {
        "predictions of zeros": torch.zeros_like(predictions),
        "predictions that are all 1": torch.ones_like(predictions),
        f"predictions of ±{large:g}": large * signs.to(predictions.dtype),
    }
    if target.shape == predictions.shape and not predictions.is_complex() and not target.is_complex():
        found["predictions equal to the targets"] = target.to(predictions.dtype).clone()
    return found


def _pass(model: nn.Module, loss: Loss, batch: Batch, what: str) -> tuple[float, Failure | None]:
    """The loss of a forward and backward pass, and the first thing in it that is not finite."""
    inputs, targets = copied(batch)
    module, predictions = first_not_finite(model, inputs)
    bad = _first_bad(tensors_in(predictions))
    if bad is not None:
        cause = "a division by 0, a logarithm, a root, or an exponential without a bound"
        return 0.0, Failure(module or "model", bad[1], f"finite on {what}", cause, bad[0])
    total = split_loss(loss(predictions, targets))[0]
    if (bad := _first_bad([total])) is not None:
        return 0.0, Failure(f"loss on {what}", bad[1], "finite", NO_BOUND)
    if total.requires_grad:
        total.backward()
    for name, parameter in named_parameters(model, loss).items():
        if parameter.grad is not None and (bad := _first_bad([parameter.grad.to_dense()])) is not None:
            return total.item(), Failure(
                name, f"a gradient of {bad[1]}", f"finite on {what}", SLOPE, bad[0]
            )
    return abs(total.item()), None


def _loss_at(loss: Loss, predictions: Tensor, targets: Any, what: str) -> tuple[float, Failure | None]:
    """The loss at some predictions, and what is not finite of it."""
    total = split_loss(loss(predictions.requires_grad_(), targets))[0]
    if (bad := _first_bad([total])) is not None:
        return 0.0, Failure(f"loss at {what}", bad[1], "finite", NO_BOUND)
    slope = torch.autograd.grad(total, [predictions], allow_unused=True)[0]
    if slope is not None and (bad := _first_bad([slope])) is not None:
        return 0.0, Failure(f"loss at {what}", f"a slope of {bad[1]}", "finite", SLOPE, bad[0])
    return abs(total.item()), None


def _first_bad(tensors: list[Tensor]) -> tuple[tuple[int, ...], str] | None:
    """Index and value of the first entry that is not finite."""
    for tensor in tensors:
        bad = (~torch.isfinite(tensor)).flatten().nonzero()
        if len(bad):
            place = int(bad[0])
            return index_of(tensor, place), repr(tensor.flatten()[place].item())
    return None


NO_BOUND = "a division by 0, a logarithm or an exponential without a bound in the loss"
SLOPE = "a root, a norm or a division whose slope is infinite there: add an ε inside"

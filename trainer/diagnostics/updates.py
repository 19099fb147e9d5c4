"""Whether the optimizer takes the step that its paper has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainer.clipping import Clipped
from trainer.data.tensors import Batch, seeded_generator
from trainer.diagnostics.finding import MOST_FAILURES, Check, Failure, index_of
from trainer.diagnostics.formulas import Formula, formula_of
from trainer.diagnostics.scratch import copied, named_parameters, scratch
from trainer.diagnostics.steps import Steps
from trainer.evaluation import Loss
from trainer.transaction import Transaction

EPS = torch.finfo(torch.float64).eps
STEPS = 3  # the first makes the state, the second uses it


def check_updates(
    model: nn.Module,
    loss: Loss,
    optimizer: Optimizer,
    batch: Batch,
    *,
    formula: Formula | None = None,
    tolerance: float = 1e-6,
) -> Check:
    """|Δ − Δ*| / max(|Δ|, |Δ*|) < tolerance for each entry of each parameter, in float64: Δ what the
    optimizer changed, Δ* its published formula from the same weights, gradient and state.

    Three steps, with the gradient of the batch and twice that gradient with 30 % of noise, begun with
    the state that the optimizer is in. The step is committed as in training, without a clip.

    Args:
        model: takes the batch's inputs.
        loss: ``(predictions, targets)`` to a scalar, or to ``(scalar, {term: scalar})``.
        optimizer: over their parameters.
        batch: a few samples, (inputs, targets).
        formula: ``(settings of the group, state of the parameter, weights, gradient)`` to the weights
            after the step; None is that of `trainer.diagnostics.formulas` by the optimizer's class name.
        tolerance: on the relative error.

    Returns:
        The check, not made for an optimizer whose formula is not known. Nothing has changed.

    Example:
        >>> model = torch.nn.Linear(3, 2)
        >>> batch = torch.randn(4, 3), torch.randn(4, 2)
        >>> optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
        >>> check_updates(model, torch.nn.MSELoss(), optimizer, batch).passed
        True
    """
    kind = type(optimizer).__name__
    formula = formula or formula_of(optimizer)
    if formula is None:
        reason = f"no published formula is known for {kind}; pass formula= to check_updates"
        return Check("updates", limit=tolerance, skipped=reason)
    names = {id(p): name for name, p in named_parameters(model, loss).items()}
    found: dict[str, tuple[float, Failure]] = {}
    worst, entries = 0.0, 0
    with scratch(model, loss, optimizer=optimizer, dtype=torch.float64):
        Steps(model, loss, optimizer).measure([copied(batch, torch.float64)])
        groups = [(group, p) for group in optimizer.param_groups for p in group["params"]]
        trained = [(group, p, p.grad) for group, p in groups if p.grad is not None]
        for step in range(STEPS):
            changes = _step(optimizer, formula, trained, step)
            for (_, p, _), (before, expected) in zip(trained, changes, strict=True):
                name = names.get(id(p), "a parameter that is not the model's")
                error, failure = _compared(name, p.detach(), before, expected, tolerance)
                worst, entries = max(worst, error), entries + p.numel()
                if failure is not None and error > found.get(name, (0.0,))[0]:
                    found[name] = error, failure
    ranked = sorted(found.values(), key=lambda pair: -pair[0])
    failures = tuple(failure for _, failure in ranked[:MOST_FAILURES])
    looked_at = f"{STEPS} steps of {kind}, {entries // STEPS:,} entries"
    return Check("updates", looked_at, failures, worst, tolerance)


def _step(
    optimizer: Optimizer,
    formula: Formula,
    trained: Sequence[tuple[dict[str, Any], Tensor, Tensor]],
    number: int,
) -> list[tuple[Tensor, Tensor]]:
    """Takes a step; returns the weights before it and those that the formula has after it."""
    changes, gradients = [], []
    for place, (group, p, gradient) in enumerate(trained):
        noise = torch.randn(p.shape, dtype=torch.float64, generator=seeded_generator(number, place))
        p.grad = gradient.to_dense() * (1 + 0.3 * number * noise.to(p)) * (1 + number)
        gradients.append(p.grad)
        before = p.detach().clone()
        signed = -p.grad if group.get("maximize") else p.grad.clone()
        changes.append((before, formula(group, optimizer.state.get(p, {}), before, signed)))
    Transaction([], optimizer).commit(gradients, Clipped())
    return changes


def _compared(
    name: str, after: Tensor, before: Tensor, expected: Tensor, tolerance: float
) -> tuple[float, Failure | None]:
    """The largest relative error of a change, and a failure if it is too large."""
    change, wanted = after - before, expected - before
    # The weight itself is rounded too.
    floor = 4 * EPS * before.abs() / tolerance + 1e-300
    errors = (change - wanted).abs() / torch.maximum(torch.maximum(change.abs(), wanted.abs()), floor)
    errors = errors.nan_to_num(math.inf).flatten()
    place = int(errors.argmax())
    worst = errors[place].item()
    if worst < tolerance:
        return worst, None
    got, should = change.flatten()[place].item(), wanted.flatten()[place].item()
    expectation = f"{should:.6g} by the formula"
    return worst, Failure(
        name, f"a change of {got:.6g}", expectation, _cause(got, should), index_of(after, place)
    )


def _cause(got: float, should: float) -> str:
    if got == 0:
        return "it has not moved: its entry or its group is left out of the step"
    if should and abs(got / should + 1) < 1e-6:
        return "the sign is wrong: it climbs"
    if should and abs(4 * got / should - round(4 * got / should)) < 1e-6:
        return f"{got / should:g} times as far: a factor in the step"
    return "another weight decay, momentum or bias correction than its name promises"

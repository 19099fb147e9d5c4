"""Whether every parameter is trained."""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainer.clipping import total_norm
from trainer.data.tensors import Batch, each
from trainer.diagnostics.finding import MOST_FAILURES, Check, Failure
from trainer.diagnostics.scratch import copied, named_parameters, scratch
from trainer.diagnostics.steps import Steps
from trainer.diagnostics.trace import Uses
from trainer.evaluation import Loss

STEPS = 3  # behind a zero-initialised layer the first gradient is 0


def check_coverage(model: nn.Module, loss: Loss, optimizer: Optimizer, batch: Batch) -> Check:
    """Every parameter of model and loss receives a gradient other than 0 and moves, in three steps.

    Each must be in the optimizer and on a path from the loss. Those that are frozen
    (``requires_grad=False``), and those that no function of torch is given in the forward pass, are
    named in the notes and are no failure. A frozen one must stay where it is. The steps are taken in
    float64 and with the rate that a schedule starts from, so that neither rounding nor a warm-up hides
    a move.

    Args:
        model: takes the batch's inputs.
        loss: ``(predictions, targets)`` to a scalar, or to ``(scalar, {term: scalar})``.
        optimizer: over their parameters.
        batch: a few samples, (inputs, targets).

    Returns:
        The check; its figure is how many are not trained. Nothing has changed.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
        >>> batch = torch.randn(4, 3), torch.randn(4, 2)
        >>> optimizer = torch.optim.SGD(model[1].parameters(), 0.1)
        >>> check = check_coverage(model, torch.nn.MSELoss(), optimizer, batch)
        >>> check.passed, check.failures[0].name
        (False, '0.weight')
    """
    named = named_parameters(model, loss)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    with scratch(model, loss, optimizer=optimizer, dtype=torch.float64):
        before = {name: p.detach().clone() for name, p in named.items()}
        used, largest = _train(model, loss, optimizer, copied(batch, torch.float64), named)
        moved = {name for name, p in named.items() if not torch.equal(p.detach(), before[name])}
    failures, frozen, unused = [], [], []
    for name, parameter in named.items():
        if not parameter.requires_grad:
            frozen.append(name)
            if name in moved:
                cause = "something writes to it in the forward pass or the step"
                failures.append(Failure(name, "moved", "where it was, being frozen", cause))
        elif id(parameter) in rates and largest[name] is None and name not in used:
            unused.append(name)
        elif (gap := _gap(largest[name], name in moved, rates.get(id(parameter)))) is not None:
            failures.append(Failure(name, *gap))
    failures += _foreign(named, optimizer)
    notes = [("frozen", frozen), ("not used in the forward pass", unused)]
    return Check(
        "coverage",
        f"{len(named) - len(frozen) - len(unused)} of {len(named)} tensors are to be trained",
        tuple(failures[:MOST_FAILURES]),
        len(failures),
        1,
        tuple(f"{what}: {', '.join(names)}" for what, names in notes if names),
    )


def _train(
    model: nn.Module, loss: Loss, optimizer: Optimizer, batch: Batch, named: Mapping[str, Tensor]
) -> tuple[set[str], dict[str, float | None]]:
    """Which parameters a function of torch is given in the forward pass, and the largest entry of the
    gradient of each; None for one that never gets a gradient."""
    for group in optimizer.param_groups:
        group["lr"] = group.get("initial_lr", group["lr"])
    steps = Steps(model, loss, optimizer)
    largest: dict[str, float | None] = dict.fromkeys(named)
    uses = Uses()
    for number in range(STEPS):
        # Each without one more sample: under L1 the signs of an even number may well sum to 0.
        rows = slice(max(0, min(number, len(batch[0]) - 2)), None)
        with uses:
            _, _, steps.found = steps.gradients([copied(each(itemgetter(rows), batch))])
        for name, parameter in named.items():
            if parameter.grad is not None:
                entry = parameter.grad.to_dense().abs().max().item() if parameter.numel() else 1.0
                largest[name] = max(largest[name] or 0.0, entry)
        if steps.found:  # else the optimizer is for another model
            steps.commit(total_norm(steps.found))
    return {name for name, parameter in named.items() if id(parameter) in uses.ids}, largest


def _gap(largest: float | None, moved: bool, rate: float | None) -> tuple[str, str, str] | None:
    """What was found, what should have been, and why, of a parameter that is not trained."""
    if rate is None:
        cause = "it was made after the optimizer, or left out of its list: pass model.parameters()"
        return "not in the optimizer", "trained by it", cause
    if largest is None:
        cause = "it is used, but its path to the loss is cut: .detach(), .data, .item() or no_grad()"
        return "no gradient", "one other than 0", cause
    if largest == 0:
        cause = "a dead activation, or a weight of 0 that does not move, stands between it and the loss"
        return f"a gradient of 0 in each of {STEPS} steps", "one other than 0", cause
    if not moved:
        cause = "its learning rate is 0" if rate == 0 else "the optimizer does not step it"
        return f"unmoved by {STEPS} steps", "moved", cause
    return None


def _foreign(named: Mapping[str, Tensor], optimizer: Optimizer) -> list[Failure]:
    """What the optimizer trains in vain."""
    known = {id(parameter) for parameter in named.values()}
    cause = "the model was copied, or its layer replaced, after the optimizer was made"
    strangers = [
        f"optimizer.param_groups[{number}]['params'][{place}]"
        for number, group in enumerate(optimizer.param_groups)
        for place, parameter in enumerate(group["params"])
        if id(parameter) not in known
    ]
    return [Failure(name, "a tensor of no model", "the model's", cause) for name in strangers]

"""Whether a forward and backward pass leaves the batch and the weights as they are."""

from __future__ import annotations

from torch import nn

from trainer.data.tensors import Batch
from trainer.diagnostics.finding import (
    MOST_FAILURES,
    Check,
    Failure,
    first_difference,
    largest_difference,
)
from trainer.diagnostics.scratch import copied, named_parameters, scratch
from trainer.diagnostics.trace import changed_in_place, tensors_in
from trainer.evaluation import Loss, split_loss


def check_purity(model: nn.Module, loss: Loss, batch: Batch) -> Check:
    """A forward and backward pass changes neither the batch nor a parameter, and autograd finds all that
    it needs.

    A batch that is changed in place is another one when it comes again, as batches that are views of
    data in memory do; a weight that changes in the forward pass changes in evaluation too.

    Args:
        model: takes the batch's inputs.
        loss: ``(predictions, targets)`` to a scalar, or to ``(scalar, {term: scalar})``.
        batch: a few samples, (inputs, targets).

    Returns:
        The check; its figure is the largest change. Nothing has changed.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.ReLU(inplace=True), torch.nn.Linear(3, 2))
        >>> batch = torch.randn(4, 3), torch.randn(4, 2)
        >>> check_purity(model, torch.nn.MSELoss(), batch).failures[0].name
        'inputs'
    """
    with scratch(model, loss):
        inputs, targets = copied(batch)
        named = {"inputs": inputs}
        parts = tensors_in(targets)
        named |= {f"targets[{i}]" if len(parts) > 1 else "targets": t for i, t in enumerate(parts)}
        named |= {name: p.detach() for name, p in named_parameters(model, loss).items()}
        before = {name: tensor.clone() for name, tensor in named.items()}
        failures = []
        try:
            split_loss(loss(model(inputs), targets))[0].backward()
        except RuntimeError as error:
            if (failure := overwritten(error, model, batch)) is None:
                raise
            failures.append(failure)
        cause = "an operation in place (x += …, x.mul_(…), inplace=True), or one that writes to .data"
        for name, tensor in named.items():
            if (found := first_difference(tensor, before[name])) is not None:
                index, got, expected = found
                failures.append(Failure(name, got, f"{expected} as before the pass", cause, index))
        worst = max(largest_difference(tensor, before[name]) for name, tensor in named.items())
    return Check("purity", f"{len(named)} tensors", tuple(failures[:MOST_FAILURES]), worst)


def overwritten(error: RuntimeError, model: nn.Module, batch: Batch) -> Failure | None:
    """The failure of a backward pass that lacks a value, with the modules whose output was overwritten;
    None for another error."""
    message = str(error).strip().splitlines()[0]
    if "modified by an inplace operation" not in message:
        return None
    names = ", ".join(changed_in_place(model, copied(batch)[0]))
    cause = "a value that the backward pass needs is changed in place: write x = x + …, not x += …"
    return Failure(names or "a tensor inside a module", message, "a gradient", cause)

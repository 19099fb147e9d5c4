"""Whether the same steps give the same bits: a second time, and after a save."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainer import checkpoint
from trainer.clipping import Clip
from trainer.data.tensors import Batch
from trainer.diagnostics.finding import (
    MOST_FAILURES,
    Check,
    Failure,
    first_difference,
    largest_difference,
)
from trainer.diagnostics.scratch import copied, keeping, named_parameters, named_state, scratch
from trainer.diagnostics.steps import Steps, device_of
from trainer.diagnostics.trace import tensors_in, watching
from trainer.evaluation import Loss
from trainer.rng import rng_state, seed_everything, set_rng_state
from trainer.schedulers import Schedule

STEPS = 3
SEED = 0
PLAIN = "a state may hold tensors, numbers, texts, lists and dicts"


def check_determinism(
    model: nn.Module,
    loss: Loss,
    optimizer: Optimizer,
    batch: Batch,
    *,
    clip: Clip | None = None,
    precision: str = "fp32",
) -> Check:
    """Two runs of three steps from the same weights and seed agree to the bit.

    Where they do not, the first module is named whose output differs although its inputs are the same.

    Args:
        model: takes the batch's inputs.
        loss: ``(predictions, targets)`` to a scalar, or to ``(scalar, {term: scalar})``.
        optimizer: over their parameters.
        batch: a few samples, (inputs, targets).
        clip: a mode of `trainer.clipping`, bound if it wants to be; None for none.
        precision: "fp32", or "bf16" or "fp16" for autocast.

    Returns:
        The check; its figure is the largest difference. Nothing has changed.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Dropout(0.5))
        >>> batch = torch.randn(4, 3), torch.randn(4, 2)
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> check_determinism(model, torch.nn.MSELoss(), optimizer, batch).passed
        True
    """
    runs = []
    for _ in range(2):
        with keeping(clip), scratch(model, loss, optimizer=optimizer):
            seed_everything(SEED)
            steps = Steps(model, loss, optimizer, clip=clip, precision=precision)
            passes: list[Pass] = []
            with watching(model, lambda *seen, to=passes: to.append(Pass.of(*seen))):
                first = steps(copied(batch))
            losses = [first, *(steps(copied(batch)) for _ in range(STEPS - 1))]
            values = {f"loss of step {n}": value for n, value in enumerate(losses, 1)}
            runs.append((passes, values | _state(model, loss, optimizer)))
    (passes, one), (again, other) = runs
    failures = _strange(passes, again)
    cause = "a random or unordered operation in the loss, the backward pass or the optimizer"
    failures += _differing(one, other, "as in the run before", cause)
    looked_at = f"two runs of {STEPS} steps, {len(one)} tensors"
    return Check("determinism", looked_at, tuple(failures[:MOST_FAILURES]), _apart(one, other))


def check_resume(
    model: nn.Module,
    loss: Loss,
    optimizer: Optimizer,
    batch: Batch,
    *,
    clip: Clip | None = None,
    scheduler: Schedule | None = None,
    precision: str = "fp32",
) -> Check:
    """Three steps, a checkpoint, two steps; then, from elsewhere, the checkpoint and two steps again: to
    the bit the same.

    The checkpoint is a file as a run writes it, with the state of every part and of the random number
    generators. "From elsewhere": a further step has been taken before it is loaded, so that what is in
    no ``state_dict`` is not by chance what it was.

    Args:
        model, loss, optimizer, batch, clip, precision: as for `check_determinism`.
        scheduler: moved after each step if it goes by steps; None for none.

    Returns:
        The check; its figure is the largest difference. Nothing has changed.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Dropout(0.5))
        >>> batch = torch.randn(4, 3), torch.randn(4, 2)
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> check_resume(model, torch.nn.MSELoss(), optimizer, batch).passed
        True
    """
    named = {"model": model, "loss": loss, "optimizer": optimizer, "clip": clip, "scheduler": scheduler}
    parts: dict[str, Any] = {name: part for name, part in named.items() if hasattr(part, "state_dict")}
    settings: Any = {"clip": clip, "scheduler": scheduler, "precision": precision}
    things = (model, loss, optimizer)
    with keeping(clip, scheduler), scratch(model, loss, optimizer=optimizer):
        seed_everything(SEED)
        steps, later = Steps(*things, **settings), Steps(*things, **settings)
        parts |= steps.more
        for _ in range(STEPS):
            steps(copied(batch))
        try:
            loaded = _through_a_file(parts, device_of(model))
        except TypeError as error:
            return Check("resume", failures=(Failure("checkpoint", str(error), "plain data", PLAIN),))
        one = _two_steps(steps, batch, *things)
        steps(copied(batch))
        for name, part in (parts | later.more).items():
            part.load_state_dict(loaded[name])
        set_rng_state(device_of(model), loaded["rng"])
        other = _two_steps(later, batch, *things)
    cause = "a part keeps something that is in no state_dict: make it a buffer, or save it too"
    failures = _differing(other, one, "as without the interruption", cause)[:MOST_FAILURES]
    looked_at = f"{len(parts)} parts saved after {STEPS} steps, {len(one)} tensors"
    return Check("resume", looked_at, tuple(failures), _apart(other, one))


def _through_a_file(parts: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """The state of the parts and of the generators, as a checkpoint has it."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "step.ckpt"
        state = {name: part.state_dict() for name, part in parts.items()}
        checkpoint.save(path, {**state, "rng": rng_state(device)})
        return checkpoint.load(path)


@dataclass(frozen=True, slots=True)
class Pass:
    """A module's forward pass: its name, what it was given and what it returned, copied."""

    name: str
    given: list[Tensor]
    returned: list[Tensor]

    @classmethod
    def of(cls, name: str, given: Any, returned: Any) -> Self:
        """Of what a hook sees."""
        return cls(name, *([t.detach().clone() for t in tensors_in(v)] for v in (given, returned)))


def _strange(first: Sequence[Pass], second: Sequence[Pass]) -> list[Failure]:
    """The first module that answers the same question differently."""
    for one, other in zip(first, second, strict=False):
        if _any_difference(one.given, other.given):
            continue
        if (found := _any_difference(other.returned, one.returned)) is not None:
            index, got, expected = found
            cause = "it draws from a generator that no seed sets, reads a clock, or keeps a hidden state"
            return [Failure(one.name, got, f"{expected} as for the same inputs before", cause, index)]
    return []


def _any_difference(
    some: Sequence[Tensor], others: Sequence[Tensor]
) -> tuple[tuple[int, ...] | None, str, str] | None:
    pairs = zip(some, others, strict=False)
    return next((found for pair in pairs if (found := first_difference(*pair)) is not None), None)


def _two_steps(
    steps: Steps, batch: Batch, model: nn.Module, loss: Loss, optimizer: Optimizer
) -> dict[str, Tensor]:
    losses = {f"loss of step {n}": steps(copied(batch)) for n in (1, 2)}
    return losses | _state(model, loss, optimizer)


def _state(model: nn.Module, loss: Loss, optimizer: Optimizer) -> dict[str, Tensor]:
    """Copies of parameters, buffers, moments and rates, by name."""
    found = named_state(model, loss)
    names = {id(p): name for name, p in named_parameters(model, loss).items()}
    for parameter, state in optimizer.state.items():
        owner = names.get(id(parameter), "another tensor")
        tensors = {key: value for key, value in state.items() if isinstance(value, Tensor)}
        found |= {f"optimizer.{key} of {owner}": value for key, value in tensors.items()}
    for number, group in enumerate(optimizer.param_groups):
        found[f"optimizer.param_groups[{number}].lr"] = torch.as_tensor(group["lr"], dtype=torch.float64)
    return {name: tensor.detach().clone() for name, tensor in found.items()}


def _differing(
    got: Mapping[str, Tensor], expected: Mapping[str, Tensor], how: str, cause: str
) -> list[Failure]:
    """The tensors that differ; those that are missing on one side have no value there."""
    failures = []
    for name in dict.fromkeys([*got, *expected]):
        if name not in got or name not in expected:
            there = "there" if name in got else "not there"
            failures.append(Failure(name, there, how, cause))
        elif (found := first_difference(got[name], expected[name])) is not None:
            index, value, wanted = found
            failures.append(Failure(name, value, f"{wanted} {how}", cause, index))
    return failures


def _apart(got: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    return max(largest_difference(got[name], expected[name]) for name in got if name in expected)

"""Which runs can be trained as one, and why the others cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import FunctionType
from typing import Any
from weakref import ref

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from trainer.ensemble.run import Run
from trainer.ensemble.whole import stackable
from trainer.evaluation import split_loss
from trainer.loop import Trainer
from trainer.recomputing import recomputes
from trainer.rng import rng_state, set_rng_state

SHARE = 0.5  # of the memory that is free, for the runs that are trained as one
MOST = 256  # runs at once: each holds three files open
PROCESS = 2**27  # bytes that a fork makes its own before it has trained anything
COPIES = 8  # of a row: weights, gradients, moments, and what an update makes on its way


def grouped(runs: Sequence[Run]) -> tuple[list[list[int]], dict[int, str]]:
    """Numbers of the runs that can be trained as one, group by group, and why each other run cannot.

    Clip, guard, optimizer, schedule and initialization may differ in anything: a run has its own. Model,
    loss and the trainer's settings may not, but for those numbers of a loss that it declares to be
    ``float | Tensor``; nor may the data, but for what the seed draws. Runs of which the model draws
    numbers (dropout) need one seed, because the stack draws once. All stand at the same step.
    """
    heads: list[list[int]] = []
    apart: dict[int, str] = {}
    for number, run in enumerate(runs):
        reason = _alone(run.trainer)
        if reason:
            apart[number] = reason
            continue
        for group in heads:
            reason = _difference(runs[group[0]], run)
            if not reason:
                group.append(number)
                break
        else:
            apart[number] = reason  # unless others turn out to be like it
            heads.append([number])
    groups: list[list[int]] = []
    for group in heads:
        try:
            draws = _draws(runs[group[0]])
        except Exception as error:  # which each will meet again, and tell
            apart |= dict.fromkeys(group, f"its first pass raises {type(error).__name__}")
            continue
        groups += _with_one_seed(runs, group, apart) if draws else [group]
    several = [group for group in groups if len(group) > 1]
    for group in several:
        for number in group:
            apart.pop(number, None)
    alone = {number for group in groups if len(group) == 1 for number in group}
    return several, {n: apart.get(n) or "no other job is like it" for n in sorted(alone | apart.keys())}


def chunked(runs: Sequence[Run], group: Sequence[int], parts: int = 1) -> list[list[int]]:
    """The group in so many parts of about the same size, or in more: that many of them have to fit into
    the memory that is free."""
    free = SHARE * _free_memory() / parts
    most = min(MOST, max(1, int(free / max(1, _bytes(runs[group[0]])))))
    parts = min(len(group), max(parts, -(-len(group) // most)))
    ends = [-(-len(group) * part // parts) for part in range(parts + 1)]
    return [list(group[first:end]) for first, end in pairwise(ends)]


def side_by_side(runs: Sequence[Run], most: int) -> int:
    """How many of the runs, ``most`` or fewer, fit into the memory that is free, each by itself."""
    largest = max(runs, key=lambda run: sum(int(p.nbytes) for p in run.trainer.parameters))
    try:
        taken = PROCESS + _bytes(largest)
    except Exception:  # which the run will meet again, and tell
        return most
    return max(1, min(most, int(SHARE * _free_memory() / taken)))


def _alone(trainer: Trainer) -> str:
    parameters = [*trainer.model.parameters()]
    if trainer.forward is not trainer.model:
        return "trainer.compile compiles one model"
    if trainer.scaler is not None:
        return "trainer.precision=fp16 finds a loss scale for one model"
    if recomputes(trainer.model):
        return "trainer.checkpoint_activations=true computes one model again"
    if any(not p.is_contiguous() for p in parameters):
        return "trainer.channels_last=true lays out one model"
    if trainer.gradients.detector is not None:
        return "trainer.detect_anomaly=true looks at every operation"
    if not parameters or any(not p.requires_grad or p.dtype != parameters[0].dtype for p in parameters):
        return "not all of its parameters are trained in one format"
    if not any(p is q for p in parameters for q in trainer.parameters[:1]):
        return "its optimizer has other parameters than its model"
    return ""


def _difference(one: Run, other: Run) -> str:
    a, b = one.trainer, other.trainer
    for name in ("accumulate", "log_every", "limits", "device"):
        if getattr(a, name) != getattr(b, name):
            return f"another trainer.{name}"
    if any(getattr(a, name) != getattr(b, name) for name in ("step", "epoch", "batch")):
        return f"it goes on from step {b.step}"
    if a.precision.name != b.precision.name:
        return "another trainer.precision"
    reason = _unlike("model", a.model, b.model) or _unlike("loss", a.loss, b.loss)
    if reason or one.data is other.data:
        return reason
    for name in ("batches_per_epoch", "input_shape", "output_shape"):
        if getattr(one.data, name) != getattr(other.data, name):
            return f"data of another {name}"
    return _unlike("data", one.data, other.data, ignoring=("seed", "train", "val", "provenance"))


def _unlike(where: str, a: Any, b: Any, ignoring: Sequence[str] = ()) -> str:
    """The first thing in which two objects differ beyond the entries of their tensors; "" if none."""
    different = f"another {where}"
    if a is b:
        return ""
    if type(a) is not type(b):
        return different
    if isinstance(a, ref):  # by which torch's RNNs know their weights
        return _unlike(where, a(), b())
    if isinstance(a, Tensor):
        return "" if (a.shape, a.dtype) == (b.shape, b.dtype) else f"another shape of {where}"
    if isinstance(a, list | tuple):
        a, b = dict(enumerate(a)), dict(enumerate(b))
    elif not isinstance(a, Mapping):
        if isinstance(a, FunctionType) or not hasattr(a, "__dict__"):
            return "" if _equal(a, b) else different  # two closures may hold anything
        free = (*stackable(type(a)), *ignoring)
        a, b = ({k: v for k, v in vars(x).items() if k not in free} for x in (a, b))
    if list(a) != list(b):
        return different
    for key in a:
        name = str(key)
        inner = where if name.startswith("_") else f"{where}.{name}"
        if reason := _unlike(inner, a[key], b[key]):
            return reason
    return ""


def _equal(a: Any, b: Any) -> bool:
    try:
        return bool(a == b)
    except Exception:  # of two arrays that is neither true nor false; a user's class may raise anything
        return False


def _with_one_seed(runs: Sequence[Run], group: Sequence[int], apart: dict[int, str]) -> list[list[int]]:
    """A group whose model draws numbers, by seeds, and by where their generators stand."""
    seeds: dict[tuple[int, bytes], list[int]] = {}
    for number in group:
        run = runs[number]
        drawn = run.generators["torch"].numpy().tobytes() if run.generators else b""
        seeds.setdefault((run.trainer.seed, drawn), []).append(number)
        apart[number] = "its model draws numbers (dropout), and no other job like it has its seed"
    return list(seeds.values())


def _pass(run: Run) -> None:
    """A forward pass as in training, which leaves no trace but in the generators."""
    trainer = run.trainer
    data = run.data.to(trainer.device, trainer.precision.dtype)
    modules = list(trainer.modules.values())
    saved = [(buffer, buffer.clone()) for module in modules for buffer in module.buffers()]
    inputs, targets = next(data.batches(0))
    with trainer.precision.autocast():
        split_loss(trainer.loss(trainer.model(inputs), targets))
    for buffer, before in saved:
        buffer.copy_(before)


def _draws(run: Run) -> bool:
    before = rng_state(run.trainer.device)
    _pass(run)
    after = rng_state(run.trainer.device)
    set_rng_state(run.trainer.device, before)
    return not torch.equal(before["torch"], after["torch"])


def _bytes(run: Run) -> int:
    """What a member takes: copies of its row, and what the forward pass keeps for the backward."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        _pass(run)
    row = sum(int(p.nbytes) for p in run.trainer.parameters)
    return COPIES * row + 3 * sum(kept.values())


def _free_memory() -> int:
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            (line,) = (line for line in file if line.startswith("MemAvailable"))
        return int(line.split()[1]) * 1024
    except (OSError, ValueError):  # another system than Linux
        return 2**31

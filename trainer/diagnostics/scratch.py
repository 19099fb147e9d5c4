"""A place to try things in: afterwards not a bit of model, loss and optimizer has changed."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainer.data.tensors import Batch, each, place
from trainer.rng import rng_state, set_rng_state


@contextmanager
def scratch(
    *parts: object, optimizer: Optimizer | None = None, dtype: torch.dtype | None = None
) -> Iterator[None]:
    """Inside, parameters, buffers and optimizer state are copies; afterwards the originals are back.

    The tensors stay the objects they are, with other content, so that whoever holds on to one sees the
    copies too. Gradients are None inside; they, the modes of the modules, the optimizer's settings and
    the random number generators are as they were afterwards. What a module keeps in plain attributes is
    not.

    Args:
        parts: model and loss; what is no module is left alone.
        optimizer: over their parameters.
        dtype: of the copies of floating-point tensors; None is each one's own.
    """
    modules = [part for part in parts if isinstance(part, nn.Module)]
    tensors = list({id(t): t for m in modules for t in (*m.parameters(), *m.buffers())}.values())
    groups = [] if optimizer is None else list(optimizer.param_groups)
    known = {id(tensor) for tensor in tensors}
    tensors += [t for group in groups for t in group["params"] if id(t) not in known]
    originals = [(tensor, tensor.data, tensor.grad) for tensor in tensors]
    inner = [module for m in modules for module in m.modules()]
    modes = [(module, module.training) for module in inner]
    tables: list[tuple[Any, Any]] = [
        (table, dict(table)) for m in inner for table in (m._parameters, m._buffers)
    ]
    device = tensors[0].device if tensors else torch.device("cpu")
    generators = rng_state(device)
    settings = [dict(group) for group in groups]
    state = {} if optimizer is None else dict(optimizer.state)
    try:
        for tensor, data, _ in originals:
            tensor.data, tensor.grad = _copy(data, dtype), None
        for parameter, values in state.items():
            optimizer.state[parameter] = _copied_state(values, parameter)  # type: ignore[union-attr]
        yield
    finally:
        for tensor, data, gradient in originals:
            tensor.grad = None  # or a gradient of another type would forbid the change back
            tensor.data = data
            tensor.grad = gradient
        for table, entries in tables:  # a module may have put another tensor in the place of a buffer
            table.clear()
            table.update(entries)
        for module, training in modes:
            module.training = training
        if optimizer is not None:
            if optimizer.param_groups[0] is not groups[0]:
                # A load_state_dict has made new groups: who gathered tensors by the old ones has to see
                # that, by the state, and gather anew.
                state = {p: _copied_state(values, p) for p, values in state.items()}
            optimizer.state.clear()
            optimizer.state.update(state)
            for group, earlier in zip(optimizer.param_groups, settings, strict=True):
                group.clear()
                group.update(earlier)
        set_rng_state(device, generators)


@contextmanager
def keeping(*parts: Any) -> Iterator[None]:
    """The parts that have a state, such as a clip, are afterwards in that which they were in."""
    states = [(part, copy.deepcopy(part.state_dict())) for part in parts if hasattr(part, "state_dict")]
    try:
        yield
    finally:
        for part, state in states:
            part.load_state_dict(state)


def copied(batch: Batch, like: torch.dtype | None = None) -> Batch:
    """A batch of its own memory, its floating-point tensors in the dtype."""
    inputs, targets = each(Tensor.clone, batch)
    if like is None:
        return inputs, targets
    return place(inputs, inputs.device, like), place(targets, inputs.device, like)


def named_parameters(model: nn.Module, loss: object) -> dict[str, nn.Parameter]:
    """The parameters by name, those of the loss as ``loss.<name>``; a shared one under its first."""
    named = dict(model.named_parameters())
    known = {id(parameter) for parameter in named.values()}
    for name, parameter in loss.named_parameters() if isinstance(loss, nn.Module) else ():
        if id(parameter) not in known:
            named[f"loss.{name}"] = parameter
    return named


def named_state(model: nn.Module, loss: object) -> dict[str, Tensor]:
    """Parameters and buffers by name, with their present content, not copied."""
    named: dict[str, Tensor] = {n: p.detach() for n, p in named_parameters(model, loss).items()}
    for prefix, part in (("", model), ("loss.", loss)):
        if isinstance(part, nn.Module):
            named |= {prefix + name: buffer for name, buffer in part.named_buffers()}
    return named


def _copy(data: Tensor, dtype: torch.dtype | None) -> Tensor:
    if dtype is None or not (data.is_floating_point() or data.is_complex()):
        return data.clone()
    return data.to(dtype.to_complex() if data.is_complex() else dtype, copy=True)


def _copied_state(values: dict[str, Any], parameter: Tensor) -> dict[str, Any]:
    """An optimizer's state of a parameter, in the parameter's type, but for counters."""

    def copy(name: str, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        shaped = value.is_floating_point() and name not in COUNTERS
        return _copy(value, parameter.dtype if shaped else None)

    return {name: copy(name, value) for name, value in values.items()}


COUNTERS = ("step", "mu_product")  # which torch keeps in its own type

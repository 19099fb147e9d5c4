"""Putting parts where a saved state left them: only a state that is theirs, and with the settings that
they have now where those were to change."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from trainer import checks
from trainer.computing import follow_layout
from trainer.schedulers import Schedule


def put(state: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Loads each part's state into it, after a look at what torch would take without a word.

    Args:
        state: of every part, by its name, and the counters.
        parts: objects with ``load_state_dict``; ``optimizer`` is one of them.

    Raises:
        ValueError: if a part is missing, a shape or a dtype differs, a weight is NaN or inf, or a
            counter is no number; nothing has changed then.
    """
    if missing := ", ".join(parts.keys() - state.keys()):
        raise ValueError(f"the state has no {missing}")
    for name, value in state["counters"].items():
        checks.whole(f"counters.{name}", value)
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            _check_weights(name, part, state[name])
    optimizer: Optimizer = parts["optimizer"]
    earlier = (taken["optimizer"] for taken in state["snapshots"]["taken"])
    for moments in (state["optimizer"], *earlier):
        _check_moments(moments, optimizer)
    for name, part in parts.items():
        part.load_state_dict(state[name])
    follow_layout(optimizer)


def _check_weights(name: str, module: nn.Module, saved: Mapping[str, Any]) -> None:
    own, parameters = module.state_dict(), dict(module.named_parameters())
    for key, value in saved.items():
        if key not in own or not isinstance(value, Tensor) or not isinstance(own[key], Tensor):
            continue  # load_state_dict names it
        if value.shape != own[key].shape:
            shapes = f"has shape {tuple(value.shape)}, here {tuple(own[key].shape)}"
            raise ValueError(f"{key} of {name} {shapes}")
        if value.dtype != own[key].dtype:
            raise ValueError(f"{key} of {name} is {value.dtype}, here {own[key].dtype}")
        # A buffer may be: a mask of -inf.
        if key in parameters and not value.isfinite().all():
            raise ValueError(f"{key} of {name} holds NaN or inf; go back to an earlier checkpoint")


def _check_moments(saved: Mapping[str, Any], optimizer: Optimizer) -> None:
    """A fused kernel takes moments for as long as their parameter, and would write beyond their end."""
    groups = [*saved["param_groups"], *optimizer.param_groups]
    if not any(group.get("fused") for group in groups):
        return
    order = chain.from_iterable(group["params"] for group in saved["param_groups"])
    own = chain.from_iterable(group["params"] for group in optimizer.param_groups)
    for number, parameter in zip(order, own, strict=False):  # of other lengths, torch says so
        for name, value in saved["state"].get(number, {}).items():
            fits = torch.Size([]) if name == "step" else parameter.shape
            if isinstance(value, Tensor) and value.shape != fits:
                raise ValueError(
                    f"{name} of parameter {number} has shape {tuple(value.shape)}, here {tuple(fits)}"
                )


@contextmanager
def reconfigured(schedule: Schedule, optimizer: Optimizer, steps: int, per_epoch: int) -> Iterator[None]:
    """What is loaded inside brings moments along, but none of the settings it was saved with: learning
    rate, weight decay and schedule are as they are configured now, and stand where they would after so
    many steps. A plateau, which goes by what it has seen, begins anew.

    Args:
        schedule: as it was made, not moved yet.
        optimizer: whose learning rate it moves.
        steps: taken so far.
        per_epoch: steps in an epoch.
    """
    for step in range(1, steps + 1):
        schedule.step_ended()
        if step % per_epoch == 0:
            schedule.epoch_ended({})
    settings = [{k: v for k, v in group.items() if k != "params"} for group in optimizer.param_groups]
    moved = copy.deepcopy(schedule.state_dict())
    yield
    for group, own in zip(optimizer.param_groups, settings, strict=True):
        group.update(own)
    schedule.load_state_dict(moved)

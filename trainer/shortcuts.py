"""Ways around Python code of torch's that takes longer than the work, for a small model.

`backward`, `gradients` and `FusedAdam` make the very call that the public function ends in, so the
result is the same to the bit, which the tests hold; ``python -m benchmarks.step`` shows what they are
worth, and ``python -m benchmarks.startup`` what `leave_out_compiler` is. All lean on names that torch
does not promise, one more reason for the upper bound on its version.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam, AdamW, Optimizer


@dataclass(frozen=True, slots=True)
class Gathered:
    """The tensors of one parameter group, in the order of its parameters."""

    settings: dict[str, Any]
    parameters: list[Tensor]
    averages: list[Tensor]
    squares: list[Tensor]
    steps: list[Tensor]


def leave_out_compiler() -> None:
    """Lets optimizers be made without ``torch._dynamo``, whose import takes as long as torch's own.

    They import it to tell it that it must not look into these methods. Nothing that is compiled here
    calls one of them, so it need not be told.
    """
    made = Optimizer
    for method in (made.add_param_group, made.state_dict, made.load_state_dict, made.zero_grad):
        plain = inspect.unwrap(method)
        vars(plain).setdefault("__dynamo_disable", plain)


def backward(loss: Tensor) -> None:
    """``loss.backward()`` without its checks of arguments that are not given.

    Raises:
        RuntimeError: if the loss depends on no parameter, as ``loss.backward()`` does.
    """
    engine = torch.autograd.Variable._execution_engine
    ones = torch.ones_like(loss)
    engine.run_backward((loss,), (ones,), False, False, (), allow_unreachable=True, accumulate_grad=True)


def gradients(losses: Tensor, inputs: Sequence[Tensor], weights: Tensor) -> tuple[Tensor, ...]:
    """``torch.autograd.grad(losses, inputs, weights)`` without its checks, for which it imports sympy.

    Raises:
        RuntimeError: if the losses do not depend on one of the inputs, as ``torch.autograd.grad`` does.
    """
    engine = torch.autograd.Variable._execution_engine
    found: tuple[Tensor, ...] = engine.run_backward(
        (losses,),
        (weights,),
        False,
        False,
        tuple(inputs),
        allow_unreachable=False,
        accumulate_grad=False,
    )
    return found


class FusedAdam:
    """The step of a fused `torch.optim.Adam` or `AdamW`.

    `Optimizer.step` gathers parameters, gradients and moments anew each time, groups them by device and
    dtype and opens a profiler range: three times the cost of the update. This gathers once, and declines
    where anything is out of the ordinary.

    Args:
        optimizer: any optimizer; `step` declines those that are not of this kind.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self.kernel = _kernel(optimizer)
        self.gathered: list[Gathered] = []
        self.steps: list[Tensor] = []

    def step(self, gradients: list[Tensor], scale: Tensor | None) -> bool:
        """Updates all parameters with the gradients divided by ``scale``, if this can be done here.

        Args:
            gradients: of the parameters, in the order of the optimizer's groups.
            scale: shape (), float32; None is one.

        Returns:
            False, with nothing changed, where `Optimizer.step` has to be called instead: for another
            optimizer, with step hooks, or if a parameter has no gradient.
        """
        if self.kernel is None or _has_hooks(self.optimizer) or not self._gather(len(gradients)):
            return False
        rest = iter(gradients)
        with torch.no_grad():
            count(self.steps)
            for group in self.gathered:
                settings = group.settings
                own = list(islice(rest, len(group.parameters)))
                tensors = (group.parameters, own, group.averages, group.squares, group.steps)
                update(self.kernel, tensors, settings, settings["lr"], scale)
        return True

    def _gather(self, count: int) -> bool:
        """Whether there are moments for so many gradients; gathers them unless they are those gathered
        last."""
        first = self.optimizer.param_groups[0]["params"][0]
        if not self.optimizer.state.get(first):
            self._make_moments()
        average = self.optimizer.state.get(first, {}).get("exp_avg")
        if average is None:
            return False
        if not self.gathered or self.gathered[0].averages[0] is not average:
            every = (p for settings in self.optimizer.param_groups for p in settings["params"])
            if not all(self.optimizer.state.get(parameter) for parameter in every):
                return False  # one has never had a gradient
            self.gathered = [self._group(settings) for settings in self.optimizer.param_groups]
            self.steps = [step for group in self.gathered for step in group.steps]
        return count == len(self.steps)

    def _make_moments(self) -> None:
        """What the first `Optimizer.step` begins with; left to it where a parameter has no gradient."""
        every = (p for settings in self.optimizer.param_groups for p in settings["params"])
        if all(parameter.grad is not None for parameter in every):
            optimizer: Any = self.optimizer
            for settings in optimizer.param_groups:
                optimizer._init_group(settings, [], [], [], [], [], [])
            optimizer._opt_called = True  # or torch's schedules would warn of steps without updates

    def _group(self, settings: dict[str, Any]) -> Gathered:
        states = [self.optimizer.state[parameter] for parameter in settings["params"]]
        names = ("exp_avg", "exp_avg_sq", "step")
        return Gathered(
            settings, settings["params"], *([state[name] for state in states] for name in names)
        )


def count(steps: list[Tensor]) -> None:
    """Adds one to each of an optimizer's counters of steps, tensors of shape ()."""
    # A tensor, not 1: each of the CPU's scalar additions would make one of its own.
    torch._foreach_add_(steps, _ONE, alpha=1.0)


def update(
    kernel: Any,
    tensors: Sequence[list[Tensor]],
    settings: Mapping[str, Any],
    lr: float,
    scale: Tensor | None = None,
) -> None:
    """One call of a fused kernel of Adam's.

    Args:
        kernel: `FusedAdam.kernel`.
        tensors: parameters, gradients, first and second moments, and counters of steps, already counted.
        settings: of the parameter group; its learning rate is not looked at.
        lr: the learning rate.
        scale: shape (), float32, what the gradients are divided by; None is one.
    """
    parameters, gradients, averages, squares, steps = tensors
    kernel(
        *(parameters, gradients, averages, squares, [], steps),
        amsgrad=False,
        lr=lr,
        beta1=settings["betas"][0],
        beta2=settings["betas"][1],
        weight_decay=settings["weight_decay"],
        eps=settings["eps"],
        maximize=False,
        grad_scale=scale,
        found_inf=None,
    )


def _kernel(optimizer: Optimizer) -> Any:
    kernels = {Adam: torch._fused_adam_, AdamW: torch._fused_adamw_}
    kernel = kernels.get(type(optimizer))
    return kernel if kernel and all(map(_is_plain, optimizer.param_groups)) else None


def _is_plain(settings: dict[str, Any]) -> bool:
    unusual = ("amsgrad", "maximize", "capturable", "differentiable")
    usual = not any(settings[name] for name in unusual)
    return bool(settings["fused"]) and usual and isinstance(settings["lr"], float)


def _has_hooks(optimizer: Optimizer) -> bool:
    return bool(optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks)


_ONE = torch.tensor(1.0)

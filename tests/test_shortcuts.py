"""The shortcuts give what the public calls give, bit for bit, and step aside where they would not."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trainer.shortcuts import FusedAdam, backward
from trainer.shortcuts import gradients as gradients_of


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1))


def groups(model: nn.Module) -> list[dict[str, Any]]:
    weights = [p for p in model.parameters() if p.dim() > 1]
    biases = [p for p in model.parameters() if p.dim() == 1]
    return [{"params": weights}, {"params": biases, "weight_decay": 0.0, "lr": 0.02}]


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW])
@pytest.mark.parametrize("scale", [None, torch.tensor(2.5)])
def test_the_step_is_the_optimizers_bit_for_bit(kind: Any, scale: torch.Tensor | None) -> None:
    models = net(), net()
    optimizers = [kind(groups(m), lr=0.01, weight_decay=0.1, fused=True) for m in models]
    shortcut = FusedAdam(optimizers[1])
    taken = []
    for step in range(6):
        generator = torch.Generator().manual_seed(step)
        for parameters in zip(models[0].parameters(), models[1].parameters(), strict=True):
            gradient = torch.randn(parameters[0].shape, generator=generator)
            for parameter in parameters:
                parameter.grad = gradient.clone()
        for optimizer in optimizers:  # as a schedule would
            optimizer.param_groups[0]["lr"] = 0.01 / (step + 1)
        optimizers[0].grad_scale = scale
        optimizers[0].step()
        taken.append(shortcut.step(gradients(optimizers[1]), scale))
        if not taken[-1]:
            optimizers[1].grad_scale = scale
            optimizers[1].step()
        if step == 3:  # a resumed run has other moment tensors
            optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    assert all(taken)
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(a, b)
        states = optimizers[0].state[a], optimizers[1].state[b]
        assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def gradients(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    every = (p.grad for group in optimizer.param_groups for p in group["params"])
    return [gradient for gradient in every if gradient is not None]


def stepped(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.Adam(p, fused=False),
        lambda p: torch.optim.Adam(p, amsgrad=True, fused=True),
        lambda p: torch.optim.Adam(p, maximize=True, fused=True),
        lambda p: torch.optim.Adam(p, lr=torch.tensor(1e-3), fused=True),
        lambda p: torch.optim.SGD(p, lr=1e-3, fused=True),
        lambda p: torch.optim.NAdam(p),
        lambda p: type("Mine", (torch.optim.Adam,), {})(p, fused=True),
    ],
)
def test_anything_out_of_the_ordinary_takes_the_long_way(make: Any) -> None:
    optimizer = stepped(make(list(net().parameters())))
    assert FusedAdam(optimizer).step(gradients(optimizer), None) is False


def test_hooks_and_missing_gradients_take_the_long_way() -> None:
    model = net()
    optimizer = stepped(torch.optim.Adam(model.parameters(), fused=True))
    assert FusedAdam(optimizer).step(gradients(optimizer), None) is True
    next(model.parameters()).grad = None
    assert FusedAdam(optimizer).step(gradients(optimizer), None) is False
    stepped(optimizer)
    optimizer.register_step_post_hook(lambda *_: None)
    assert FusedAdam(optimizer).step(gradients(optimizer), None) is False


def test_backward_is_the_tensors_own() -> None:
    models = net(), net()
    x = torch.randn(5, 4)
    models[0](x).square().mean().backward()
    backward(models[1](x).square().mean())
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert torch.equal(a.grad, b.grad)


def test_gradients_are_those_of_autograd() -> None:
    model, x, weights = net(), torch.randn(5, 4), torch.rand(5)
    inputs = list(model.parameters())
    expected = torch.autograd.grad(model(x)[:, 0], inputs, weights)
    for a, b in zip(gradients_of(model(x)[:, 0], inputs, weights), expected, strict=True):
        assert torch.equal(a, b)
    with pytest.raises(RuntimeError, match="not have been used"):
        gradients_of(model(x)[:, 0], [*inputs, torch.ones(1, requires_grad=True)], weights)


def test_backward_refuses_a_loss_without_parameters() -> None:
    with pytest.raises(RuntimeError, match="does not require grad"):
        backward(torch.tensor(1.0))


def test_it_steps_aside_while_a_parameter_has_never_had_a_gradient() -> None:
    models = net(), net()
    optimizers = [torch.optim.AdamW(groups(m), fused=True) for m in models]
    shortcut, taken = FusedAdam(optimizers[1]), []
    for step in range(5):
        for model in models:
            for number, parameter in enumerate(model.parameters()):
                late = number == 2 and step < 2
                parameter.grad = None if late else torch.full_like(parameter, step + 1.0)
        optimizers[0].step()
        taken.append(shortcut.step(gradients(optimizers[1]), None))
        if not taken[-1]:
            optimizers[1].step()
    assert taken == [False, False, False, True, True]
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_run_with_adam_does_not_wait_for_the_compiler() -> None:
    code = (
        "import sys, torch; from trainer.shortcuts import FusedAdam, leave_out_compiler\n"
        "leave_out_compiler(); p = torch.nn.Parameter(torch.ones(3)); p.grad = torch.ones(3)\n"
        "o = torch.optim.Adam([p], fused=True); o.state[p]\n"  # a look, which makes an entry
        "print(FusedAdam(o).step([p.grad], None))\n"
        "o.zero_grad(); o.load_state_dict(o.state_dict()); print('torch._dynamo' in sys.modules)"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "False"], done.stderr

"""Small models that are deliberately wrong, and one that is not, for the tests of the checks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]


def batch(samples: int = 6) -> Batch:
    """Inputs (N, 4) and targets (N, 3)."""
    generator = torch.Generator().manual_seed(1)
    draw = [torch.randn(samples, size, generator=generator) for size in (4, 3)]
    return draw[0], draw[1]


def model(*middle: nn.Module, seed: int = 0) -> nn.Sequential:
    """Linear layers, 4 to 5 to 3, with modules in between; ReLU where none are given."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 5), *(middle or (nn.ReLU(),)), nn.Linear(5, 3))


class _Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return 3 * x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return 3 * ctx.factor * gradient, None


class WrongBackward(nn.Module):
    """3x, whose backward is off by a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return _Scaled.apply(x, self.factor)  # type: ignore[no-any-return]


class Branches(nn.Module):
    """Two branches, one of which is detached, and a layer that is never used."""

    def __init__(self, cut: bool = True, spare: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.cut = cut
        self.left, self.right = nn.Linear(4, 3), nn.Linear(4, 3)
        self.spare = nn.Linear(2, 2) if spare else None

    def forward(self, x: Tensor) -> Tensor:
        right = self.right(x)
        left: Tensor = self.left(x)
        return left + (right.detach() if self.cut else right)


class Overwrites(nn.Module):
    """A sigmoid, its output doubled in place: so that autograd notices, or behind its back."""

    def __init__(self, silently: bool) -> None:
        super().__init__()
        self.silently = silently
        self.squash = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.squash(x)
        if self.silently:
            y.data.mul_(2)
            return y
        return y.mul_(2)


class Rounds(nn.Module):
    """To whole numbers, with a straight-through gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return x + (x.round() - x).detach()


class Noisy(nn.Module):
    """Adds noise from a generator that nobody seeds."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator()

    def forward(self, x: Tensor) -> Tensor:
        noise = torch.randn(x.shape, generator=self.generator, dtype=x.dtype)
        return x + 0.1 * noise


class NoisyBackward(torch.autograd.Function):
    """The identity, with noise in the gradient."""

    generator = torch.Generator()

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        noise = torch.rand(gradient.shape, generator=NoisyBackward.generator, dtype=gradient.dtype)
        return gradient * (1 + noise)


class NoisyWayBack(nn.Module):
    """Whose forward pass repeats, but not its backward pass."""

    def forward(self, x: Tensor) -> Tensor:
        return NoisyBackward.apply(x)  # type: ignore[no-any-return,no-untyped-call]


class Forgetful(nn.Module):
    """Scales by a running mean that is a plain attribute, and so in no checkpoint; or by a buffer."""

    def __init__(self, saved: bool = False) -> None:
        super().__init__()
        self.saved = saved
        if saved:
            self.register_buffer("mean", torch.ones(()))
        else:
            self.mean = torch.ones(())

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                self.mean = 0.9 * self.mean + 0.1 * x.abs().mean()
        return x / self.mean


def stepping(optimizer: torch.optim.Optimizer, factor: float) -> torch.optim.Optimizer:
    """The optimizer, with every change multiplied by a factor."""
    step = optimizer.step

    def scaled(*args: Any, **kwargs: Any) -> Any:
        tensors = [p for group in optimizer.param_groups for p in group["params"]]
        before = [p.detach().clone() for p in tensors]
        outcome = step(*args, **kwargs)
        with torch.no_grad():
            for p, old in zip(tensors, before, strict=True):
                p.copy_(old + factor * (p - old))
        return outcome

    optimizer.step = scaled  # type: ignore[method-assign]
    return optimizer


def tensors_of(*parts: Any) -> list[Tensor]:
    """Copies of all parameters, buffers, gradients and optimizer moments."""
    found: list[Tensor] = []
    for part in parts:
        if isinstance(part, torch.optim.Optimizer):
            states = part.state.values()
            found += [v for state in states for v in state.values() if isinstance(v, Tensor)]
        elif isinstance(part, nn.Module):
            found += [*part.parameters(), *part.buffers()]
            found += [p.grad for p in part.parameters() if p.grad is not None]
    return [tensor.detach().clone() for tensor in found]


def same(some: list[Tensor], others: list[Tensor]) -> bool:
    """Whether they are alike to the bit, in type and shape too."""
    pairs = zip(some, others, strict=True)
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)

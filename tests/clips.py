"""What the tests of the clip modes share: a net with all that can go wrong, and a clip brought to its
end."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from trainer.clipping import total_norm


class Net(nn.Module):
    """Sparse rows, a zero-initialised weight, a layer without any gradient, a transposed convolution, a
    scalar, and an embedding that is the head as well."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(12, 4)
        self.zero = nn.Linear(4, 4)
        self.silent = nn.Linear(4, 4)
        self.up = nn.ConvTranspose2d(2, 3, 2)
        self.scale = nn.Parameter(torch.ones(()))
        self.mix = nn.Linear(12, 4, bias=False)
        self.head = nn.Linear(4, 12)
        self.head.weight = self.embedding.weight
        nn.init.zeros_(self.zero.weight)
        nn.init.zeros_(self.zero.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        """Class scores, shape (B, 12), for tokens of shape (B,)."""
        x = self.embedding(tokens)
        x = x + self.zero(x) + 0.0 * self.silent(x)
        x = self.up(x.view(-1, 2, 2, 1)).amax((2, 3), keepdim=True).expand(-1, 3, 2, 2)
        scores: Tensor = self.head(self.mix(x.flatten(1)) * self.scale)
        return scores


def bound(mode: Any, dtype: torch.dtype = torch.float32) -> tuple[Any, Net, torch.optim.Optimizer]:
    """The mode beside a net and an optimizer that it is bound to."""
    net = Net().to(dtype)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3, fused=True)
    if hasattr(mode, "bind"):
        mode.bind(net, optimizer)
    return mode, net, optimizer


def gradients(net: nn.Module, scale: float = 1.0, seed: int = 0) -> list[Tensor]:
    """Puts a normal gradient on every parameter, none on the silent layer, three rows on a table."""
    for parameter, normal in zip(net.parameters(), _normal(seed % 16), strict=True):
        parameter.grad = (scale * normal).to(parameter.dtype)
    return found(net)


@cache
def _normal(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    values = []
    for name, parameter in Net().named_parameters():
        value = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        if name.startswith("silent"):
            value.zero_()
        if name == "embedding.weight":
            value[3:] = 0
        values.append(value)
    return values


def loose(scale: float = 1.0, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    """Gradients of no net: a matrix, a vector, a scalar and a kernel."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(5, 3), (5,), (), (2, 5, 1, 1)]
    return [scale * torch.randn(s, generator=generator, dtype=dtype) for s in shapes]


def found(net: nn.Module) -> list[Tensor]:
    """The gradients there are."""
    return [parameter.grad for parameter in net.parameters() if parameter.grad is not None]


def clip(mode: Any, grads: Sequence[Tensor]) -> list[Tensor]:
    """Brings the clip to its end, in place: the mode, and the multiplication it may leave to the
    commit. Returns copies of the outcome."""
    grads = list(grads)
    clipped = mode(grads, total_norm(grads, mode.norm_type))
    if clipped.coefficient is not None:
        torch._foreach_mul_(grads, clipped.coefficient)
    return copies(grads)


def copies(grads: Sequence[Tensor]) -> list[Tensor]:
    """Of each tensor."""
    return [grad.clone() for grad in grads]


def train(mode: Any, net: nn.Module, optimizer: Any, scales: Sequence[float], seed: int = 1) -> None:
    """One clipped step after another, of gradients as long as the scales say."""
    for step, scale in enumerate(scales):
        clip(mode, gradients(net, scale, seed + step))
        optimizer.step()


def same(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    """Whether all tensors are equal bit for bit, a NaN to a NaN."""
    return all(
        torch.equal(x.nan_to_num(7.0), y.nan_to_num(7.0)) and torch.equal(x.isnan(), y.isnan())
        for x, y in zip(a, b, strict=True)
    )


def tensors(state: Any) -> list[Tensor]:
    """Every tensor in a state."""
    if isinstance(state, Tensor):
        return [state]
    values = state.values() if isinstance(state, dict) else state if isinstance(state, list) else ()
    return [tensor for value in values for tensor in tensors(value)]

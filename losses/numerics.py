"""Division, standard deviation and modulus that stay finite, in value and in gradient.

All of it is computed and returned in float32 at least: 1e-8 is zero in float16.
"""

from __future__ import annotations

import torch
from torch import Tensor

EPS = 1e-8


def widened(x: Tensor) -> Tensor:
    """x in float32 (complex64) at least."""
    wide = torch.complex64 if x.is_complex() else torch.float32
    return x.to(torch.promote_types(x.dtype, wide))


def stable_divide(numerator: Tensor, denominator: Tensor, eps: float = EPS) -> Tensor:
    """a / (d + sign(d)·ε), with sign(0) = 1: away from zero on the side where the denominator is.

    The usual a / (d + ε) divides by zero at d = −ε and changes its sign just above.

    Args:
        numerator: a, any shape.
        denominator: d, real, a shape that broadcasts against it.
        eps: ε > 0, in units of the denominator.

    Example:
        >>> round(stable_divide(torch.tensor(1e-8), torch.tensor(1e-10)).item(), 4)
        0.9901
    """
    denominator = widened(denominator)
    return widened(numerator) / (denominator + torch.where(denominator < 0, -eps, eps))


def stable_std(x: Tensor, dim: int | tuple[int, ...] | None = None) -> Tensor:
    """√(Σ(x − mean)² / (n − 1)), the reduced axes kept; 0 with gradient 0 where x is constant or n = 1.

    Entries are divided by the largest first, so that no square overflows or vanishes.

    Args:
        x: real, any shape.
        dim: the axes that are reduced; None for all.
    """
    scale = _scale(widened(x), dim)
    return scale * _std(_centred(widened(x) / scale, dim), dim)


def stable_normalize(x: Tensor, dim: int | tuple[int, ...] | None = None, eps: float = EPS) -> Tensor:
    """(x − mean) / (std + ε·max|x|): mean 0 and standard deviation 1 whatever the size of x.

    The standard deviation is that of n − 1; a constant and a single entry give 0.

    Args:
        x: real, any shape.
        dim: the axes that mean and deviation are taken over; None for all.
        eps: ε > 0, relative to the largest entry: what varies less counts as constant.

    Example:
        >>> stable_normalize(torch.tensor([1e-10, 1e10, 0.0, -1e-10]))
        tensor([-0.5000,  1.5000, -0.5000, -0.5000])
    """
    deviations = _centred(widened(x) / _scale(widened(x), dim), dim)
    return stable_divide(deviations, _std(deviations, dim), eps)


def modulus(x: Tensor) -> Tensor:
    """|x| of complex entries, with gradient 0 at 0, where that of √(re² + im²) is NaN; x if real."""
    return widened(x).abs() if x.is_complex() else widened(x)


def _scale(x: Tensor, dim: int | tuple[int, ...] | None) -> Tensor:
    """max|x|, or 1 if that is 0. A constant to autograd: what is computed does not depend on it."""
    largest = x.detach().abs().amax(_axes(x, dim), keepdim=True)
    return torch.where(largest > 0, largest, 1.0)


def _centred(x: Tensor, dim: int | tuple[int, ...] | None) -> Tensor:
    return x - x.mean(_axes(x, dim), keepdim=True)


def _std(deviations: Tensor, dim: int | tuple[int, ...] | None) -> Tensor:
    axes = _axes(deviations, dim)
    squares = deviations.square().mean(axes, keepdim=True)
    count = deviations.numel() / squares.numel()
    positive = squares > 0
    # The gradient of √ at 0 is inf, and inf · 0 = NaN would pass through a `where` around it.
    root = torch.where(positive, squares, 1.0).sqrt() * (count / max(count - 1, 1)) ** 0.5
    return torch.where(positive, root, 0.0)


def _axes(x: Tensor, dim: int | tuple[int, ...] | None) -> tuple[int, ...]:
    if dim is None:
        return tuple(range(x.dim()))
    return dim if isinstance(dim, tuple) else (dim,)

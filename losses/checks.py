"""Checks of plain constructor arguments, one readable line each, the argument's name first."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor


def number(name: str, value: Any, rule: str, low: float = -math.inf, high: float = math.inf) -> float:
    """The value as a float, if it is a finite number in [low, high], which ``rule`` says in words.

    Raises:
        ValueError: otherwise.
    """
    real = isinstance(value, int | float) and not isinstance(value, bool)
    if not (real and math.isfinite(value) and low <= value <= high):
        raise ValueError(f"{name} must be {rule}, got {value!r}")
    return float(value)


def whole(name: str, value: Any, at_least: int) -> int:
    """The value, if it is a whole number that large (a bool is none).

    Raises:
        ValueError: otherwise.
    """
    if type(value) is not int or value < at_least:
        raise ValueError(f"{name} must be a whole number >= {at_least}, got {value!r}")
    return value


def weight(name: str, value: Any, high: float = math.inf) -> float | Tensor:
    """The value as it is, if it is a number in [0, high], or a tensor () or (K,) of such numbers.

    Raises:
        ValueError: for a negative, non-finite or too large weight, or another shape.
    """
    rule = "a finite number >= 0" if high == math.inf else f"a number >= 0 and <= {high:g}"
    if not isinstance(value, Tensor):
        number(name, value, rule, 0, high)
        return value  # type: ignore[no-any-return]
    if value.dim() > 1 or not value.is_floating_point():
        raise ValueError(f"{name} must be a number, or a float tensor () or (members,), got {value!r}")
    if not (value.isfinite() & (value >= 0) & (value <= high)).all():
        raise ValueError(f"{name} must be {rule} for each member, got {value.tolist()!r}")
    return value

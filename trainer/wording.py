"""Figures and paths as people read and type them."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import Any, TypeGuard

MISSING = "\u2013"


def count(number: Any, noun: str) -> str:
    return f"{MISSING if number is None else number} {noun}{'' if number == 1 else 's'}"


def typed(path: Path) -> str:
    """The path as one would type it here: relative where it lies below, quoted for the shell."""
    path, here = path.absolute(), Path.cwd()
    # A process that changed into its own run folder must not answer ".": the shell is elsewhere.
    inside = path.is_relative_to(here) and path != here
    return shlex.quote(str(path.relative_to(here) if inside else path))


def is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def typed_number(text: str) -> float | None:
    """The finite number that was typed; None where it is something else."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def number(value: Any, digits: int = 4) -> str:
    """Four significant digits, exponent only where plain digits would run long."""
    if not is_number(value):
        return MISSING
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.{digits - 2}e}"
    return f"{value:#.{digits}g}".rstrip(".") if abs(value) < 10**digits else f"{value:.0f}"


def spread(mean: Any, error: Any) -> str:
    """A mean and how far it is from sure, both to the second digit of that."""
    if not (is_number(mean) and is_number(error) and 1e-6 < error < 1e5):
        return number(mean)
    places = max(0, 1 - math.floor(math.log10(error)))
    return f"{mean:.{places}f} ± {error:.{places}f}"


def percent(share: Any) -> str:
    if not is_number(share):
        return MISSING
    return f"{100 * share:.1f} %" if 0 < share < 0.01 else f"{100 * share:.0f} %"


def clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"

"""Checks of plain constructor arguments, one readable line each.

Every message opens with the argument's name and gives the rule, the value and, where there is one,
the remedy: ``max_norm must be > 0, got -1; use clip=none to train without clipping``. The name comes
first so that whoever composes the part can put its group in front (``clip.max_norm must …``).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any


def number(
    name: str,
    value: Any,
    *,
    above: float | None = None,
    at_least: float | None = None,
    below: float | None = None,
    finite: bool = True,
    remedy: str = "",
) -> float:
    """The value as a float, if it is a real number within the open or closed bounds given.

    Raises:
        ValueError: for a bool, a text, NaN, a value out of bounds, or infinity where ``finite``.
    """
    bounds = [f"> {above:g}"] if above is not None else []
    bounds += [f">= {at_least:g}"] if at_least is not None else []
    bounds += [f"< {below:g}"] if below is not None else []
    if not (_is_real(value) and (_isfinite(value) or not (finite or math.isnan(value)))):
        kind = "a finite number" if finite else "a number"
        _refuse(name, " ".join([kind, " and ".join(bounds)]).strip(), value, remedy)
    good = (above is None or value > above) and (at_least is None or value >= at_least)
    if not (good and (below is None or value < below)):
        _refuse(name, " and ".join(bounds), value, remedy)
    return float(value)


def whole(
    name: str, value: Any, *, at_least: int = 0, below: int | None = None, remedy: str = ""
) -> int:
    """The value, if it is a whole number within the bounds (a bool or 1.5 is none).

    Raises:
        ValueError: otherwise.
    """
    good = isinstance(value, int) and not isinstance(value, bool) and value >= at_least
    if not (good and (below is None or value < below)):
        bound = "" if below is None else f" and < {below}"
        _refuse(name, f"a whole number >= {at_least}{bound}", value, remedy)
    return int(value)


def choice(name: str, value: Any, options: tuple[str, ...], remedy: str = "") -> str:
    """The value, if it is one of the options.

    Raises:
        ValueError: otherwise.
    """
    if value not in options:
        _refuse(name, f"one of {', '.join(options)}", value, remedy)
    return str(value)


def path(name: str, value: Any, kind: str) -> Path:
    """The value as a path, if there is such a thing: a folder where ``kind`` says so, else a file.

    Raises:
        ValueError: otherwise.
    """
    good = isinstance(value, str | Path) and value != ""
    if not (good and (Path(value).is_dir() if "folder" in kind else Path(value).is_file())):
        remedy = "a relative path begins where the command is typed"
        _refuse(name, f"a {kind} that exists", str(value) if isinstance(value, Path) else value, remedy)
    return Path(value)


def _isfinite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond every float
        return False


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _refuse(name: str, rule: str, value: Any, remedy: str) -> None:
    raise ValueError(f"{name} must be {rule}, got {value!r}" + (f"; {remedy}" if remedy else ""))

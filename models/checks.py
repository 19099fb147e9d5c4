"""Checks of constructor arguments and shapes, one readable line each, the argument's name first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def whole(name: str, value: Any, at_least: int, remedy: str) -> int:
    """The value, if it is a whole number in range (a bool or 1.0 is none).

    Raises:
        ValueError: otherwise.
    """
    if not _is_whole(value, at_least):
        raise ValueError(f"{name} must be a whole number >= {at_least}, got {value!r}; {remedy}")
    return int(value)


def sizes(name: str, value: Any, remedy: str) -> tuple[int, ...]:
    """The value as a tuple, if it is a list of whole numbers >= 1; it may be empty.

    Raises:
        ValueError: otherwise.
    """
    if not _is_shape(value):
        raise ValueError(f"{name} must be a list of whole numbers >= 1, got {value!r}; {remedy}")
    return tuple(value)


def image(name: str, shape: Any) -> tuple[int, int, int]:
    """The shape of an image, (channels, height, width).

    Raises:
        ValueError: if it is none.
    """
    if not (_is_shape(shape) and len(shape) == 3):
        raise ValueError(
            f"{name} must be (channels, height, width), got {shape!r}; use model=mlp for other data"
        )
    channels, height, width = shape
    return channels, height, width


def _is_shape(value: Any) -> bool:
    good = isinstance(value, Sequence) and not isinstance(value, str)
    return good and all(_is_whole(size, 1) for size in value)


def _is_whole(value: Any, at_least: int) -> bool:
    # type() and not isinstance(): True is an int to Python, but not a width.
    return type(value) is int and value >= at_least

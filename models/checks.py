"""Checks of constructor arguments and shapes, one readable line each, the argument's name first."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any


def whole(name: str, value: Any, at_least: int, remedy: str) -> int:
    """The value, if it is a whole number in range (a bool or 1.0 is none).

    Raises:
        ValueError: otherwise.
    """
    if not _is_whole(value, at_least):
        raise ValueError(f"{name} must be a whole number >= {at_least}, got {value!r}; {remedy}")
    return int(value)


def number(name: str, value: Any, above: float = -math.inf, remedy: str = "") -> float:
    """The value, if it is a finite number above the bound.

    Raises:
        ValueError: otherwise.
    """
    if not (_is_finite(value) and value > above):
        rule = "a finite number" + (f" > {above:g}" if above > -math.inf else "")
        raise ValueError(f"{name} must be {rule}, got {value!r}" + (f"; {remedy}" if remedy else ""))
    return float(value)


def share(name: str, value: Any, remedy: str) -> float:
    """The value, if it is a number in [0, 1).

    Raises:
        ValueError: otherwise.
    """
    if not (_is_finite(value) and 0 <= value < 1):
        raise ValueError(f"{name} must be a number >= 0 and < 1, got {value!r}; {remedy}")
    return float(value)


def choice(name: str, value: Any, options: Collection[str]) -> str:
    """The value, if it is one of the options.

    Raises:
        ValueError: otherwise.
    """
    if not (isinstance(value, str) and value in options):
        raise ValueError(f"{name} must be one of {', '.join(options)}, got {value!r}")
    return value


def yes_or_no(name: str, value: Any) -> bool:
    """The value, if it is true or false.

    Raises:
        ValueError: otherwise.
    """
    if type(value) is not bool:
        raise ValueError(f"{name} must be true or false, got {value!r}")
    return value


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
            f"{name} must be (channels, height, width), got {shape!r}; use model=mlp for vectors, "
            "model=rnn or model=transformer for text"
        )
    channels, height, width = shape
    return channels, height, width


def text(input_shape: Any, output_shape: Any) -> tuple[int, int]:
    """Vocabulary and length of a text (T,) that is answered with logits (V, T).

    Raises:
        ValueError: if the shapes are not of this kind.
    """
    remedy = "use model=mlp for vectors, model=cnn or model=unet for images"
    if not (_is_shape(input_shape) and len(input_shape) == 1):
        raise ValueError(
            f"input_shape must be (length,), that of a text of tokens, got {input_shape!r}; {remedy}"
        )
    length: int = input_shape[0]
    if not (_is_shape(output_shape) and len(output_shape) == 2 and output_shape[1] == length):
        raise ValueError(
            f"output_shape must be (vocabulary, {length}), logits for each token of the input, got "
            f"{output_shape!r}; {remedy}"
        )
    return output_shape[0], length


def _is_shape(value: Any) -> bool:
    good = isinstance(value, Sequence) and not isinstance(value, str)
    return good and all(_is_whole(size, 1) for size in value)


def _is_whole(value: Any, at_least: int) -> bool:
    # type() and not isinstance(): True is an int to Python, but not a width.
    return type(value) is int and value >= at_least


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < math.inf

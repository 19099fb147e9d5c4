"""Checks of constructor arguments: what passes, and one line on why the rest does not."""

from __future__ import annotations

import math
from typing import Any

import pytest

from trainer import checks

INF = math.inf


@pytest.mark.parametrize(
    ("value", "bounds"),
    [
        (1, {}),
        (-2.5, {}),
        (1e-300, {"above": 0}),
        (0, {"at_least": 0}),
        (-0.0, {"at_least": 0}),
        (0.999, {"above": 0, "below": 1}),
        (INF, {"above": 0, "finite": False}),
        (-INF, {"finite": False}),
    ],
)
def test_a_number_within_its_bounds_passes_as_a_float(value: float, bounds: dict[str, Any]) -> None:
    checked = checks.number("x", value, **bounds)
    assert type(checked) is float
    assert checked == value


@pytest.mark.parametrize("value", [True, False, None, "1", "nan", [1.0], 1j, math.nan, INF, -INF])
def test_what_is_no_finite_number_is_refused_by_name_and_value(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^max_norm must be a finite number") as refusal:
        checks.number("max_norm", value)
    assert str(refusal.value).endswith(f"got {value!r}")


def test_nan_is_refused_where_infinity_is_not() -> None:
    with pytest.raises(ValueError, match=r"^x must be a number > 0, got nan$"):
        checks.number("x", math.nan, above=0, finite=False)


def test_a_whole_number_beyond_every_float_is_refused_like_infinity() -> None:
    with pytest.raises(ValueError, match=r"^x must be a finite number"):
        checks.number("x", 10**400)


@pytest.mark.parametrize(
    ("value", "bounds", "rule"),
    [
        (0, {"above": 0}, "> 0"),
        (-1, {"above": 0}, "> 0"),
        (-1e-9, {"at_least": 0}, ">= 0"),
        (1, {"below": 1}, "< 1"),
        (1, {"above": 0, "below": 1}, "> 0 and < 1"),
        (0, {"above": 0, "below": 1}, "> 0 and < 1"),
        (1.5, {"at_least": 0, "below": 1}, ">= 0 and < 1"),
        (-INF, {"at_least": 0, "finite": False}, ">= 0"),
        (INF, {"below": 1, "finite": False}, "< 1"),
    ],
)
def test_a_number_out_of_bounds_is_told_the_bounds(
    value: float, bounds: dict[str, Any], rule: str
) -> None:
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - the whole message is compared
        checks.number("x", value, **bounds)
    assert str(refusal.value) == f"x must be {rule}, got {value!r}"


def test_the_message_is_name_rule_value_and_remedy() -> None:
    with pytest.raises(ValueError, match=r"^max_norm must be > 0, got -1; use clip=none$"):
        checks.number("max_norm", -1, above=0, remedy="use clip=none")
    with pytest.raises(ValueError, match=r"^samples must be a whole number >= 1, got 1\.5; or 1$"):
        checks.whole("samples", 1.5, at_least=1, remedy="or 1")
    with pytest.raises(ValueError, match=r"^mode must be one of min, max, got 'mx'; say min$"):
        checks.choice("mode", "mx", ("min", "max"), "say min")


@pytest.mark.parametrize(("value", "bounds"), [(0, {}), (7, {"at_least": 7}), (6, {"below": 7})])
def test_a_whole_number_within_its_bounds_passes(value: int, bounds: dict[str, int]) -> None:
    assert checks.whole("n", value, **bounds) == value


@pytest.mark.parametrize("value", [True, None, "3", 1.5, 3.0, math.nan, INF, [3], -1, 7, 2**64])
def test_what_is_no_whole_number_within_its_bounds_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^n must be a whole number >= 0 and < 7") as refusal:
        checks.whole("n", value, below=7)
    assert str(refusal.value).endswith(f"got {value!r}")


def test_one_of_the_options_passes_a_choice() -> None:
    assert checks.choice("mode", "max", ("min", "max")) == "max"


@pytest.mark.parametrize("value", ["Max", "", None, 0, ["max"]])
def test_anything_else_is_refused_with_the_options(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^mode must be one of min, max, got "):
        checks.choice("mode", value, ("min", "max"))

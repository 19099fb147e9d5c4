"""Checks of the models' arguments: what passes, and the one line that refuses the rest."""

from __future__ import annotations

import re
from typing import Any

import pytest

from models import checks


def refuses(line: str) -> Any:
    return pytest.raises(ValueError, match=f"^{re.escape(line)}")


@pytest.mark.parametrize("value", [0.0, 0, 0.5, 0.999])
def test_a_share_is_in_the_half_open_interval(value: Any) -> None:
    assert checks.share("dropout", value, "0 is none") == value


@pytest.mark.parametrize("value", [1, 1.0, -0.1, float("nan"), float("inf"), True, "0.1", None])
def test_a_share_refuses_all_else(value: Any) -> None:
    with refuses(f"dropout must be a number >= 0 and < 1, got {value!r}; 0 is none"):
        checks.share("dropout", value, "0 is none")


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), True, "1", None])
def test_a_number_above_zero_refuses_all_else(value: Any) -> None:
    with refuses(f"std must be a finite number > 0, got {value!r}"):
        checks.number("std", value, above=0)


def test_a_number_without_a_bound_may_be_negative() -> None:
    assert checks.number("forget_bias", -2) == -2.0
    with refuses("forget_bias must be a finite number, got nan"):
        checks.number("forget_bias", float("nan"))


@pytest.mark.parametrize("value", ["rleu", None, ["relu"], 1])
def test_a_choice_names_all_there_are(value: Any) -> None:
    assert checks.choice("activation", "relu", ("relu", "tanh")) == "relu"
    with refuses(f"activation must be one of relu, tanh, got {value!r}"):
        checks.choice("activation", value, ("relu", "tanh"))


@pytest.mark.parametrize("value", [0, 1, "true", None])
def test_yes_or_no_is_a_bool(value: Any) -> None:
    assert checks.yes_or_no("tied", False) is False
    with refuses(f"tied must be true or false, got {value!r}"):
        checks.yes_or_no("tied", value)


def test_a_text_is_answered_with_logits_for_each_of_its_tokens() -> None:
    assert checks.text((7,), [65, 7]) == (65, 7)


@pytest.mark.parametrize("shape", [(), (1, 8, 8), 7, "7", (0,), (7.0,)])
def test_a_text_has_one_axis(shape: Any) -> None:
    with refuses(f"input_shape must be (length,), that of a text of tokens, got {shape!r}; use model="):
        checks.text(shape, (65, 7))


@pytest.mark.parametrize("shape", [(65,), (65, 8), (7, 65), (65, 7, 1), (0, 7), 65])
def test_an_answer_has_a_vocabulary_and_the_same_length(shape: Any) -> None:
    with refuses(
        f"output_shape must be (vocabulary, 7), logits for each token of the input, got {shape!r}"
    ):
        checks.text((7,), shape)

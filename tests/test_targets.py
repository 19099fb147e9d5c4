"""What a `_target_` names, and what is said when it names nothing or takes no such argument."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from losses.combined import CombinedLoss
from trainer import targets
from trainer.schedulers import Schedule


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("torch.nn.Linear", torch.nn.Linear),
        ("losses.combined.CombinedLoss", CombinedLoss),
        ("trainer.schedulers.Schedule.constant", Schedule.constant),
        ("math.sqrt", math.sqrt),
        ("trainer.data.random.random_regression", None),
    ],
)
def test_a_dotted_path_is_found(path: str, found: Any) -> None:
    located = targets.locate(path)
    assert callable(located)
    assert found is None or located == found


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("losses.combined.CombinedLos", ["no CombinedLos in losses.combined", "CombinedLoss?"]),
        ("losses.combinde.CombinedLoss", ["no combinde in losses", "mean combined"]),
        ("torch.nn.Linaer", ["no Linaer in torch.nn", "Linear"]),
        ("torch.nn.Linear.forwrd", ["no forwrd in Linear", "mean forward?"]),
        ("no_such_package.Model", ["no package no_such_package", "must be installed or lie in"]),
        ("losses.combined.CombinedLoss.alpha.x", ["no alpha in CombinedLoss"]),
        ("math.pi", ["must be callable, got float"]),
        ("losses.combined", ["must be callable, got module"]),
        ("math.pi.imga", ["no imga in", "mean imag?"]),
        ("", ["_target_"]),
        (".", ["_target_"]),
        ("math.", ["_target_ math."]),
        ("math..sqrt", ["_target_ math..sqrt"]),
    ],
)
def test_a_path_that_names_nothing_is_refused_with_what_is_there(path: str, parts: list[str]) -> None:
    with pytest.raises(ValueError, match=r"^_target_ ") as refusal:
        targets.locate(path)
    for part in parts:
        assert part in str(refusal.value)
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize("path", [None, 3, True, ["torch.nn.Linear"]])
def test_what_is_no_path_is_refused_like_one_that_names_nothing(path: Any) -> None:
    with pytest.raises(ValueError, match=r"^_target_ "):
        targets.locate(path)


def test_the_file_that_was_searched_is_named() -> None:
    import losses.combined

    with pytest.raises(ValueError, match=r"CombinedLos ") as refusal:
        targets.locate("losses.combined.CombinedLos")
    assert f"(searched {losses.combined.__file__})" in str(refusal.value)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Makes a package of one's own, importable; returns its name."""
    monkeypatch.syspath_prepend(str(tmp_path))
    name = "a_package_of_ones_own"

    def make(source: str) -> str:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
        (tmp_path / name / "part.py").write_text(source)
        return name

    return make


def test_a_package_of_ones_own_is_imported_on_demand(package: Callable[[str], str]) -> None:
    name = package("class Model:\n    size = 3\n")
    assert targets.locate(f"{name}.part.Model")().size == 3


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import no_such_dependency", "No module named 'no_such_dependency'"),
        ("from math import sqroot", "cannot import name 'sqroot'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("def f(:", "SyntaxError"),
    ],
)
def test_a_module_that_cannot_be_imported_is_told_from_one_that_is_not_there(
    package: Callable[[str], str], source: str, cause: str
) -> None:
    name = package(source)
    message = rf"^_target_ {name}\.part\.Model: importing {name}\.part failed: "
    with pytest.raises(ValueError, match=message) as refusal:
        targets.locate(f"{name}.part.Model")
    assert cause in str(refusal.value)


def test_a_package_of_ours_that_hides_ones_own_of_the_same_name_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "losses").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="there is no mine in losses") as refusal:
        targets.locate("losses.mine.Loss")
    assert f"hides your own {tmp_path / 'losses'}" in str(refusal.value)


def takes(alpha: float, beta: float = 1.0, *, gamma: float = 2.0) -> None:
    """Three parameters, one by keyword only."""


def takes_anything(alpha: float, **others: float) -> None:
    """One parameter of its own."""


class Callable_:
    """An object that can be called and has no name of its own."""

    def __call__(self, alpha: float) -> None:
        """One parameter."""


@pytest.mark.parametrize("target", [takes, takes_anything, CombinedLoss, partial(takes, 1.0), dict])
def test_a_keyword_that_is_a_parameter_passes(target: Callable[..., Any]) -> None:
    targets.check_keywords(target, [])
    targets.check_keywords(target, ["beta", "gamma"])


def test_any_keyword_passes_where_any_is_taken() -> None:
    targets.check_keywords(takes_anything, ["alpha", "delta", "x"])


@pytest.mark.parametrize(
    ("target", "keyword", "hint"),
    [
        (takes, "gama", "test_targets.takes; did you mean gamma?"),
        (CombinedLoss, "aplha", "losses.combined.CombinedLoss; did you mean alpha?"),
        (CombinedLoss, "zzz", "losses.combined.CombinedLoss; it takes alpha, beta, gamma"),
        (Schedule.constant, "optimiser", "did you mean optimizer?"),
        (partial(takes, 1.0), "gama", "did you mean gamma?"),
        (Callable_(), "alfa", "did you mean alpha?"),
    ],
)
def test_a_misspelled_keyword_is_refused_with_the_nearest(
    target: Callable[..., Any], keyword: str, hint: str
) -> None:
    with pytest.raises(ValueError, match=f"^{keyword} is not an argument of ") as refusal:
        targets.check_keywords(target, [keyword])
    assert hint in str(refusal.value)


@pytest.mark.parametrize(
    ("target", "own"),
    [(takes, {"alpha", "gamma"}), (takes_anything, {"alpha"}), (CombinedLoss, {"alpha", "gamma"})],
)
def test_only_parameters_of_its_own_are_accepted(target: Callable[..., Any], own: set[str]) -> None:
    assert targets.accepted(target, ["alpha", "gamma", "seed"]) == own

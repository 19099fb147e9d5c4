"""Optimizer settings that are refused, and every optimizer of conf/ against its written formula."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra.utils
import numpy as np
import pytest
import torch
from conftest import ROOT
from numpy.typing import NDArray
from omegaconf import OmegaConf

from trainer.optimizers import check_settings

PATHS = sorted((ROOT / "conf" / "optimizer").glob("*.yaml"))
INF, NAN = math.inf, math.nan

Array = NDArray[np.float64]
Numbers = dict[str, Any]


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_the_settings_of_every_file_pass(path: Path) -> None:
    check_settings(OmegaConf.load(path))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"lr": 1e-12, "weight_decay": 0, "eps": 0, "momentum": 0, "betas": (0.0, 0.999999)},
        {"rho": -3, "fused": "whatever", "_target_": "torch.optim.Adadelta"},
    ],
)
def test_usable_numbers_and_unknown_names_pass(settings: Numbers) -> None:
    check_settings(settings)


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [(n, v, ">") for n, v in [("lr", 0), ("lr", -1e-3)]]
    + [("lr", v, "a finite number > 0") for v in (NAN, INF, True, None, "0.1", [0.1])]
    + [(n, -1e-9, ">= 0") for n in ("weight_decay", "eps")]
    + [(n, v, "a finite number >= 0") for n in ("weight_decay", "eps") for v in (NAN, INF, False)]
    + [("momentum", v, ">= 0 and < 1") for v in (-0.1, 1, 1.5)]
    + [("momentum", NAN, "a finite number >= 0 and < 1")],
)
def test_a_number_that_cannot_train_is_refused_by_name(name: str, value: Any, rule: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be {rule}"):
        check_settings({"lr": 0.1, name: value})


@pytest.mark.parametrize("bad", [1, 1.5, -0.1, NAN, True, None])
@pytest.mark.parametrize("index", [0, 1])
def test_a_beta_out_of_range_is_refused_by_its_place(index: int, bad: Any) -> None:
    betas = [0.9, 0.999]
    betas[index] = bad
    with pytest.raises(ValueError, match=rf"^betas\[{index}\] must be .*>= 0 and < 1, got "):
        check_settings({"betas": betas})


@pytest.mark.parametrize("bad", [0.9, None])
def test_betas_that_are_no_list_are_refused_by_name(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"^betas must be "):
        check_settings({"betas": bad})


def adam(c: Numbers, w: Array, gradients: list[Array], decoupled: float = 0.0) -> Array:
    """Kingma & Ba's algorithm 1; the decay of Loshchilov & Hutter where it is decoupled."""
    (b1, b2), m, v = c["betas"], np.zeros_like(w), np.zeros_like(w)
    for t, gradient in enumerate(gradients, 1):
        g = gradient if decoupled else gradient + c["weight_decay"] * w
        w = w - c["lr"] * decoupled * w
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        w = w - c["lr"] * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + c["eps"])
    return w


def sgd(c: Numbers, w: Array, gradients: list[Array]) -> Array:
    v = np.zeros_like(w)
    for gradient in gradients:
        g = gradient + c["weight_decay"] * w
        v = c["momentum"] * v + g
        w = w - c["lr"] * (g + c["momentum"] * v if c["nesterov"] else v)
    return w


# By file name: numbers, weights and the gradients of all steps to the weights after them.
FORMULAS: dict[str, Callable[[Numbers, Array, list[Array]], Array]] = {
    "adam": adam,
    "adamw": lambda c, w, gradients: adam(c, w, gradients, decoupled=c["weight_decay"]),
    "sgd": sgd,
}


CHANGES = [{}, {"weight_decay": 0.1}, {"lr": 0.5}, {"nesterov": True}, {"betas": [0.5, 0.6]}]


def cases() -> list[Any]:
    """Every file with its own numbers, and with every change that is of its numbers alone."""
    return [
        pytest.param(path, change, id=f"{path.stem}-{change or 'as it is'}")
        for path, change in itertools.product(PATHS, CHANGES)
        if change.keys() <= OmegaConf.load(path).keys()
    ]


@pytest.mark.parametrize(("path", "change"), cases())
def test_each_file_takes_the_steps_of_its_written_formula(path: Path, change: Numbers) -> None:
    assert path.stem in FORMULAS, f"write the formula of {path.name} into this test"
    config = OmegaConf.merge(OmegaConf.load(path), change)
    generator = np.random.default_rng(0)
    weights, *gradients = generator.standard_normal((8, 5))
    parameter = torch.nn.Parameter(torch.tensor(weights))
    optimizer = hydra.utils.instantiate(config, _convert_="all")([parameter])
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
    numbers: Any = OmegaConf.to_container(config)
    expected = FORMULAS[path.stem](numbers, weights, gradients)
    np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=1e-11, atol=1e-13)

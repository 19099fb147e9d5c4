"""Optimizer settings that are refused, and every optimizer of conf/ against its written formula."""

from __future__ import annotations

import inspect
import itertools
import math
from pathlib import Path
from typing import Any

import hydra.utils
import numpy as np
import pytest
import torch
from conftest import ROOT
from omegaconf import OmegaConf
from optimizer_formulas import FORMULAS, ROUNDED, Array, Numbers

from trainer import checkpoint, targets
from trainer.optimizers import check_settings

PATHS = sorted((ROOT / "conf" / "optimizer").glob("*.yaml"))
INF, NAN = math.inf, math.nan


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_the_settings_of_every_file_pass(path: Path) -> None:
    check_settings(OmegaConf.load(path))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"lr": 1e-12, "weight_decay": 0, "eps": 0, "momentum": 0, "betas": (0.0, 0.999999)},
        {"tau": -3, "fused": "whatever", "_target_": "torch.optim.Adadelta"},
        {"alpha": 0, "rho": 0.9, "lr_decay": 0, "momentum_decay": 0, "eps": [None, 0], "ns_steps": 99},
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
    + [("momentum", NAN, "a finite number >= 0 and < 1")]
    + [(n, v, ">= 0 and < 1") for n in ("alpha", "rho") for v in (-0.1, 1)]
    + [(n, -1, ">= 0") for n in ("lr_decay", "momentum_decay", "initial_accumulator_value")]
    + [("ns_steps", v, "a whole number >= 1 and < 100") for v in (0, 100, 2.5)]
    + [("eps", None, "a finite number >= 0")],
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


def test_an_eps_of_a_pair_is_refused_by_its_place() -> None:
    with pytest.raises(ValueError, match=r"^eps\[1\] must be >= 0, got -1"):
        check_settings({"eps": [None, -1]})


@pytest.mark.parametrize("bad", [0.9, None])
def test_betas_that_are_no_list_are_refused_by_name(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"^betas must be "):
        check_settings({"betas": bad})


CHANGES = [
    {},
    {"weight_decay": 0.1},
    {"weight_decay": 0.1, "decoupled_weight_decay": True},
    {"lr": 0.5},
    {"nesterov": True},
    {"nesterov": False, "ns_steps": 3},
    {"betas": [0.5, 0.6]},
    {"centered": True, "momentum": 0.9, "alpha": 0.8},
    {"lr_decay": 0.3, "initial_accumulator_value": 0.5},
    {"momentum_decay": 1.0},
    {"eps": [1e-3, 10.0], "d": 1.5, "beta2_decay": -0.5},
]


def cases() -> list[Any]:
    """Every file with its own numbers, and with every change that is of its numbers alone."""
    return [
        pytest.param(path, change, id=f"{path.stem}-{change or 'as it is'}")
        for path, change in itertools.product(PATHS, CHANGES)
        if change.keys() <= OmegaConf.load(path).keys()
    ]


def build(path: Path, parameters: list[torch.nn.Parameter], **change: Any) -> torch.optim.Optimizer:
    config = OmegaConf.merge(OmegaConf.load(path), change)
    optimizer = hydra.utils.instantiate(config, _convert_="all")(parameters)
    assert isinstance(optimizer, torch.optim.Optimizer)
    return optimizer


SHAPES = [(5,), (4, 3), (3, 6)]


def parameters() -> list[torch.nn.Parameter]:
    generator = np.random.default_rng(0)
    return [torch.nn.Parameter(torch.tensor(generator.standard_normal(s))) for s in SHAPES]


def train(optimizer: torch.optim.Optimizer, steps: range) -> list[list[Array]]:
    """Steps with drawn gradients, which are returned: for each parameter those of all steps."""
    taken: list[list[Array]] = [[] for _ in SHAPES]
    tensors = {tuple(p.shape): p for group in optimizer.param_groups for p in group["params"]}
    for step in steps:
        generator = np.random.default_rng(100 + step)
        for shape, gradients in zip(SHAPES, taken, strict=True):
            gradients.append(generator.standard_normal(shape))
            tensors[shape].grad = torch.tensor(gradients[-1])
        optimizer.step()
    return taken


@pytest.mark.parametrize(("path", "change"), cases())
def test_each_file_takes_the_steps_of_its_written_formula(path: Path, change: Numbers) -> None:
    """A vector, a high and a wide matrix, in float64."""
    assert path.stem in FORMULAS, f"write the formula of {path.name} into this test"
    tensors = parameters()
    before = [tensor.detach().numpy().copy() for tensor in tensors]
    gradients = train(build(path, tensors, **change), range(8))
    numbers: Any = OmegaConf.to_container(OmegaConf.merge(OmegaConf.load(path), change))
    for weights, drawn, tensor in zip(before, gradients, tensors, strict=True):
        expected = FORMULAS[path.stem](numbers, weights, drawn)
        moved, should = tensor.detach().numpy() - weights, expected - weights
        np.testing.assert_allclose(moved, should, rtol=ROUNDED.get(path.stem, 1e-11), atol=1e-13)


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_every_optimizer_finds_the_bottom_of_a_valley(path: Path) -> None:
    tensors = parameters()
    optimizer = build(path, tensors, lr=0.2, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400)
    losses = []
    for _ in range(400):
        optimizer.zero_grad()
        loss = sum((torch.linspace(0.2, 2, w.numel()).view_as(w) * w**2).sum() for w in tensors)
        assert isinstance(loss, torch.Tensor)
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
        schedule.step()
    assert losses[-1] < 1e-3 * losses[0]


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_an_optimizer_saved_and_restored_goes_on_bit_for_bit(tmp_path: Path, path: Path) -> None:
    whole = parameters()
    train(build(path, whole), range(8))
    first = parameters()
    optimizer = build(path, first)
    train(optimizer, range(5))
    checkpoint.save(tmp_path / "a.ckpt", {"optimizer": optimizer.state_dict()})
    second = [torch.nn.Parameter(p.detach().clone()) for p in first]
    restored = build(path, second, lr=1e-9)  # the saved rate counts
    restored.load_state_dict(checkpoint.load(tmp_path / "a.ckpt")["optimizer"])
    train(restored, range(5, 8))
    assert all(torch.equal(a, b) for a, b in zip(whole, second, strict=True))
    for group in restored.param_groups:
        assert type(group["lr"]) is float


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_an_optimizer_has_no_state_before_its_first_step(path: Path) -> None:
    """Where it is empty it follows the model to its device and precision."""
    tensors = [torch.nn.Parameter(p.detach().float()) for p in parameters()]
    optimizer = build(path, tensors)
    assert not optimizer.state
    for tensor in tensors:
        tensor.data = tensor.data.double()
    train(optimizer, range(2))
    kept = [v for state in optimizer.state.values() for v in state.values() if torch.is_tensor(v)]
    assert {v.dtype for v in kept if v.dim()} == {torch.float64}


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_every_file_asks_for_the_kernels_that_torch_has(path: Path) -> None:
    config = OmegaConf.load(path)
    offered = inspect.signature(targets.locate(config._target_)).parameters
    fastest = [name for name in ("fused", "foreach") if name in offered][:1]
    assert [name for name in ("fused", "foreach") if config.get(name)] == fastest

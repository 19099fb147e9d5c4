"""Every loss in conf/loss, found by glob: finite on extremes, the same in float64, a batch mean."""

from __future__ import annotations

import doctest
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra.utils
import pytest
import torch
from conftest import ROOT
from omegaconf import OmegaConf
from torch import Tensor, nn

from trainer.evaluation import split_loss

PATHS = sorted((ROOT / "conf" / "loss").glob("*.yaml"))
PREDICTIONS = torch.arange(1.0, 6.0)
NEAR = PREDICTIONS + 0.1
FAR = torch.where(PREDICTIONS == 3, torch.tensor(10.0), NEAR)
SHAPE = (4, 3, 6, 6)


def _floats(predictions: Tensor, generator: torch.Generator) -> Any:
    return torch.randn(predictions.shape, generator=generator).to(predictions.dtype)


def _labels(predictions: Tensor, generator: torch.Generator) -> Any:
    rest = (predictions.shape[0], *predictions.shape[2:])
    return torch.randint(predictions.shape[1], rest, generator=generator)


def _masked(predictions: Tensor, generator: torch.Generator) -> Any:
    real, imaginary, image = (_floats(predictions, generator) for _ in range(3))
    return torch.complex(real, imaginary), real > 0, image


# What a loss is compared with, where that is not a tensor like the predictions.
KINDS: dict[str, Callable[[Tensor, torch.Generator], Any]] = {
    "cross_entropy": _labels,
    "masked": _masked,
}


def build(path: Path) -> Callable[..., Any]:
    loss: Callable[..., Any] = hydra.utils.instantiate(OmegaConf.load(path), _convert_="all")
    return loss


def targets(path: Path, predictions: Tensor, seed: int = 0) -> Any:
    return KINDS.get(path.stem, _floats)(predictions, torch.Generator().manual_seed(seed))


def rows(value: Any, part: slice) -> Any:
    return tuple(each[part] for each in value) if isinstance(value, tuple) else value[part]


def each_way(path: Path, extreme: Tensor) -> list[tuple[Tensor, Any]]:
    """The extreme as prediction, and, where targets are numbers of that kind, as target and as both."""
    pairs = [(extreme, targets(path, extreme))]
    if path.stem not in KINDS:
        pairs += [(torch.randn(extreme.shape), extreme), (extreme, -extreme), (extreme, extreme)]
    return pairs


EXTREMES = {
    "zero": torch.zeros(SHAPE),
    "constant": torch.full(SHAPE, 0.1),
    "large": torch.full(SHAPE, 1e4),
    "large and of both signs": 1e4
    * torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)).sign(),
    "one large entry": torch.zeros(SHAPE).index_put_((torch.tensor(0),) * 4, torch.tensor(1e4)),
    "single sample": torch.randn(1, 3, 6, 6, generator=torch.Generator().manual_seed(2)),
    "small": torch.full(SHAPE, 1e-30),
}


@pytest.mark.parametrize("kind", EXTREMES)
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_extremes_have_a_finite_loss_and_gradient(path: Path, kind: str) -> None:
    for predictions, wanted in each_way(path, EXTREMES[kind]):
        loss, leaf = build(path), predictions.clone().requires_grad_()
        for _ in range(3):  # the adaptive ones have seen something by then
            total, terms = split_loss(loss(leaf, wanted))
            total.backward()
        assert total.dim() == 0
        assert all(value.isfinite() for value in (total, *terms.values()))
        learned = loss.parameters() if isinstance(loss, nn.Module) else ()
        for tensor in (leaf, *learned):
            assert tensor.grad is not None
            assert tensor.grad.isfinite().all()


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_float32_comes_to_what_float64_does(path: Path) -> None:
    predictions = torch.randn(SHAPE, generator=torch.Generator().manual_seed(3))
    wanted = targets(path, predictions)
    exact = targets(path, predictions.double())
    narrow, _ = split_loss(build(path)(predictions, wanted))
    wide_loss = build(path)
    if isinstance(wide_loss, nn.Module):
        wide_loss.double()
    wide, _ = split_loss(wide_loss(predictions.double(), exact))
    assert wide.dtype == torch.float64
    torch.testing.assert_close(narrow.double(), wide, rtol=1e-6, atol=0)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_the_loss_is_the_mean_over_the_batch(path: Path) -> None:
    """So that accumulated batches weigh by their size."""
    loss = build(path)
    if isinstance(loss, nn.Module):
        loss.double().eval()
    predictions = torch.randn(SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    wanted = targets(path, predictions)
    whole, _ = split_loss(loss(predictions, wanted))
    parts = [
        split_loss(loss(predictions[part], rows(wanted, part)))[0] for part in (slice(1), slice(1, None))
    ]
    torch.testing.assert_close(whole, (parts[0] + 3 * parts[1]) / 4)


@pytest.mark.parametrize(
    ("name", "near", "far"),
    [("l1", 0.1, 1.48), ("smooth_l1", 0.005, 1.304), ("mse", 0.01, 9.808), ("huber", 0.005, 1.304)],
)
def test_the_published_values(name: str, near: float, far: float) -> None:
    """Huber's, with δ 1, is smooth L1's."""
    loss = build(ROOT / "conf" / "loss" / f"{name}.yaml")
    assert round(loss(PREDICTIONS, NEAR).item(), 4) == near
    assert round(loss(PREDICTIONS, FAR).item(), 4) == far


def test_hubers_delta_is_where_the_square_ends() -> None:
    loss = hydra.utils.instantiate({"_target_": "torch.nn.HuberLoss", "delta": 0.5})
    error = torch.tensor([0.4, 2.0])
    assert round(loss(error, torch.zeros(2)).item(), 4) == round((0.08 + 0.5 * (2 - 0.25)) / 2, 4)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_whatever_a_loss_returns_beside_the_total_has_a_name_and_is_a_scalar(path: Path) -> None:
    predictions = torch.randn(SHAPE)
    _, terms = split_loss(build(path)(predictions, targets(path, predictions)))
    assert all(isinstance(name, str) and term.dim() == 0 for name, term in terms.items())
    assert terms or path.stem in ("l1", "smooth_l1", "mse", "huber")


@pytest.mark.parametrize("module", sorted(path.stem for path in (ROOT / "losses").glob("*.py")))
def test_the_examples_in_the_documentation_run(module: str) -> None:
    found = importlib.import_module("losses" if module == "__init__" else f"losses.{module}")
    result = doctest.testmod(found, extraglobs={"torch": torch, "nn": nn})
    assert result.failed == 0

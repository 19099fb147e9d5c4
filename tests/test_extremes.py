"""What is not finite on extreme inputs or predictions is caught, and the first module named."""

from __future__ import annotations

import doctest

import pytest
import torch
from broken import batch, model, same, tensors_of
from torch import Tensor, nn

from losses.masked import MaskedLoss
from models.rnn import RNN
from models.unet import UNet
from trainer.diagnostics import check_extremes, extremes

MSE = nn.MSELoss()


class Divides(nn.Module):
    """By the sum of its inputs, or by what keeps clear of 0."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return x / (x.square().sum(1, keepdim=True) + self.eps)


@pytest.mark.parametrize("loss", [MSE, nn.L1Loss(), nn.HuberLoss()])
def test_the_usual_losses_pass(loss: nn.Module) -> None:
    check = check_extremes(model(nn.BatchNorm1d(5), nn.ReLU()), loss, batch())
    assert check.passed
    assert check.worst is not None
    assert check.worst >= 9e3


def test_images_masks_and_tokens_pass() -> None:
    torch.manual_seed(0)
    images, target = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    network = UNet((1, 4, 4), (1, 4, 4), channels=2, depth=1)
    assert check_extremes(network, MaskedLoss(), (images, (target, target > 0))).passed
    tokens = torch.randint(7, (2, 5))
    check = check_extremes(RNN((5,), (7, 5), width=4), nn.CrossEntropyLoss(), (tokens, tokens))
    assert check.passed
    assert check.looked_at == "2 kinds of inputs, 3 of predictions"


def test_the_first_module_that_is_not_finite_is_named() -> None:
    network = nn.Sequential(nn.Identity(), Divides(0.0), nn.Linear(4, 3))
    check = check_extremes(network, MSE, batch())
    assert check.failures[0].name == "1"
    assert check.failures[0].got == "nan"
    assert check.failures[0].index == (0, 0)
    assert "inputs of zeros" in check.failures[0].expected
    assert check_extremes(nn.Sequential(Divides(1e-3), nn.Linear(4, 3)), MSE, batch()).passed


def test_a_loss_that_overflows_is_told_by_where() -> None:
    def exponential(predictions: Tensor, targets: Tensor) -> Tensor:
        return (predictions - targets).exp().mean()

    check = check_extremes(model(), exponential, batch())
    assert "loss at predictions of ±10000" in {failure.name for failure in check.failures}


def test_a_slope_that_is_infinite_is_told_though_the_loss_is_finite() -> None:
    def distance(predictions: Tensor, targets: Tensor) -> Tensor:
        return (predictions - targets).square().sum(1).sqrt().mean()

    (failure,) = check_extremes(model(), distance, batch()).failures
    assert failure.name == "loss at predictions equal to the targets"
    assert failure.got == "a slope of nan"

    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.square().sum(1, keepdim=True).sqrt().expand(-1, 5)

    bare = nn.Sequential(nn.Linear(4, 5, bias=False), Root(), nn.Linear(5, 3))
    failure = check_extremes(bare, MSE, batch()).failures[0]
    assert (failure.name, failure.got) == ("0.weight", "a gradient of nan")


def test_nothing_has_changed_afterwards() -> None:
    network = model(nn.BatchNorm1d(5))
    before = tensors_of(network)
    check_extremes(network, MSE, batch())
    assert same(before, tensors_of(network))


def test_the_example_in_the_documentation_runs() -> None:
    result = doctest.testmod(extremes)
    assert (result.failed, result.attempted) == (0, 5)

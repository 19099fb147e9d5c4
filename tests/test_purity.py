"""A pass that changes the batch or a weight is caught, with the entry that it changed."""

from __future__ import annotations

import doctest

import torch
from broken import Overwrites, batch, model, same, tensors_of
from torch import Tensor, nn

from trainer.diagnostics import check_purity, purity

MSE = nn.MSELoss()


def test_batchnorm_dropout_and_an_activation_in_place_behind_a_layer_pass() -> None:
    check = check_purity(model(nn.BatchNorm1d(5), nn.ReLU(inplace=True), nn.Dropout(0.5)), MSE, batch())
    assert check.passed
    assert (check.looked_at, check.worst) == ("8 tensors", 0)


def test_a_batch_that_is_changed_is_named_with_index_and_both_values() -> None:
    inputs, targets = batch()
    given = inputs.clone()
    (failure,) = check_purity(
        nn.Sequential(nn.ReLU(inplace=True), nn.Linear(4, 3)), MSE, batch()
    ).failures
    first = (inputs < 0).nonzero()[0].tolist()
    assert failure.name == "inputs"
    assert failure.index == tuple(first)
    assert float(failure.got) == 0
    assert float(failure.expected.split(" ")[0]) == inputs[tuple(first)].item()
    assert torch.equal(inputs, given)

    def masks(predictions: Tensor, targets: tuple[Tensor, Tensor]) -> Tensor:
        targets[1].logical_not_()
        return (predictions - targets[0]).square().mean()

    pair = (targets, torch.ones(6, 3, dtype=torch.bool))
    (failure,) = check_purity(model(), masks, (inputs, pair)).failures
    assert (failure.name, failure.got) == ("targets[1]", "False")


def test_a_weight_that_is_written_in_the_forward_pass_is_named() -> None:
    class Clamps(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            self.weight.data.clamp_(-0.1, 0.1)
            return super().forward(x)

    torch.manual_seed(0)
    network = nn.Sequential(Clamps(4, 3))
    before = tensors_of(network)
    (failure,) = check_purity(network, MSE, batch()).failures
    assert failure.name == "0.weight"
    assert same(before, tensors_of(network))


def test_what_autograd_misses_is_named_by_its_module() -> None:
    (failure,) = check_purity(model(Overwrites(silently=False)), MSE, batch()).failures
    assert failure.name.startswith("1.squash (Sigmoid)")
    assert "inplace operation" in failure.got


def test_the_example_in_the_documentation_runs() -> None:
    result = doctest.testmod(purity, extraglobs={"torch": torch})
    assert (result.failed, result.attempted) == (0, 3)

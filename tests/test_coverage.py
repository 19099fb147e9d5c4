"""The coverage check names every parameter that is not trained, and why."""

from __future__ import annotations

import doctest

import pytest
import torch
from broken import Branches, batch, model, same, tensors_of
from torch import nn

from models.rnn import RNN
from trainer.diagnostics import Check, check_coverage, coverage

MSE = nn.MSELoss()


def names(check: Check) -> set[str]:
    return {failure.name for failure in check.failures}


def test_all_that_is_trained_passes_behind_a_zero_initialised_layer_too() -> None:
    network = model()
    nn.init.zeros_(network[2].weight)  # type: ignore[arg-type]
    check = check_coverage(network, MSE, torch.optim.SGD(network.parameters(), 1e-4), batch())
    assert check.passed
    assert check.looked_at.startswith("4 of 4 tensors")


def test_a_parameter_the_optimizer_lacks_is_named() -> None:
    network = model()
    optimizer = torch.optim.Adam([network[0].weight, *network[2].parameters()])  # type: ignore[list-item]
    check = check_coverage(network, MSE, optimizer, batch())
    assert names(check) == {"0.bias"}
    assert check.failures[0].got == "not in the optimizer"


def test_a_detached_branch_is_a_failure_and_a_spare_layer_a_note() -> None:
    network = Branches(spare=True)
    check = check_coverage(network, MSE, torch.optim.Adam(network.parameters()), batch())
    assert names(check) == {"right.weight", "right.bias"}
    assert "cut" in check.failures[0].cause
    assert check.notes == ("not used in the forward pass: spare.weight, spare.bias",)


def test_frozen_parameters_are_named_and_must_stay() -> None:
    network = model()
    network[0].requires_grad_(False)
    optimizer = torch.optim.Adam(network.parameters())
    check = check_coverage(network, MSE, optimizer, batch())
    assert check.passed
    assert check.notes == ("frozen: 0.weight, 0.bias",)

    def shrink(module: nn.Module, inputs: object) -> None:
        module.weight.data.mul_(0.9)  # type: ignore[operator,union-attr]

    network[0].register_forward_pre_hook(shrink)
    assert names(check_coverage(network, MSE, optimizer, batch())) == {"0.weight"}


def test_signs_that_cancel_are_no_dead_layer() -> None:
    network = nn.Linear(4, 1)
    nn.init.zeros_(network.weight)
    targets = torch.tensor([[9.0], [-9.0], [9.0], [-9.0]])
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    pair = torch.ones(4, 4), targets
    assert check_coverage(network, nn.L1Loss(), optimizer, pair).passed


def test_a_dead_layer_is_named() -> None:
    network = model()
    nn.init.constant_(network[0].bias, -100.0)  # type: ignore[arg-type]  # no ReLU ever opens
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    check = check_coverage(network, MSE, optimizer, batch())
    assert names(check) == {"0.weight", "0.bias", "2.weight"}
    assert "dead" in check.failures[0].cause


def test_a_rate_of_0_is_named_but_not_that_of_a_warm_up() -> None:
    network = model()
    groups = [{"params": network[0].parameters(), "lr": 0.0}, {"params": network[2].parameters()}]
    check = check_coverage(network, MSE, torch.optim.SGD(groups, 0.1), batch())  # type: ignore[arg-type]
    assert names(check) == {"0.weight", "0.bias"}
    assert check.failures[0].cause == "its learning rate is 0"
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    torch.optim.lr_scheduler.LinearLR(optimizer, 1e-12, total_iters=10)
    assert check_coverage(network, MSE, optimizer, batch()).passed


def test_an_optimizer_of_another_model_is_told() -> None:
    network = model()
    optimizer = torch.optim.SGD(model().parameters(), 0.1)
    check = check_coverage(network, MSE, optimizer, batch())
    assert "optimizer.param_groups[0]['params'][0]" in names(check)
    assert "0.weight" in names(check)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_the_weights_of_a_recurrence_count_as_used(cell: str) -> None:
    torch.manual_seed(0)
    network, tokens = RNN((4,), (5, 4), cell=cell, width=3), torch.tensor([[0, 1, 2, 3], [4, 0, 1, 2]])
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    assert check_coverage(network, nn.CrossEntropyLoss(), optimizer, (tokens, tokens)).passed
    for parameter in network.layers.parameters():
        parameter.requires_grad = False
    check = check_coverage(network, nn.CrossEntropyLoss(), optimizer, (tokens, tokens))
    assert check.passed
    assert check.notes[0].count("layers.0.") == 4


def test_nothing_has_changed_afterwards() -> None:
    network = model(nn.BatchNorm1d(5))
    optimizer = torch.optim.Adam(network.parameters())
    MSE(network(batch()[0]), batch()[1]).backward()
    optimizer.step()
    before = tensors_of(network, optimizer)
    check_coverage(network, MSE, optimizer, batch())
    assert same(before, tensors_of(network, optimizer))


def test_the_example_in_the_documentation_runs() -> None:
    result = doctest.testmod(coverage)
    assert (result.failed, result.attempted) == (0, 5)

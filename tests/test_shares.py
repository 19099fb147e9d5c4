"""Each term's share of the gradient norm: by hand, whatever the loss, and without a trace."""

from __future__ import annotations

import copy
import doctest
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trainer.shares as shares_module
from losses.combined import CombinedLoss
from losses.uncertainty import UncertaintyLoss
from trainer.evaluation import split_loss
from trainer.shares import Shares, gradient_shares


def plain(shares: dict[str, Tensor]) -> dict[str, float]:
    return {name: round(share.item(), 6) for name, share in shares.items()}


def test_the_shares_worked_out_by_hand() -> None:
    """p = w·x with x = (3, 4), t = 0, w = 1: gradients into w are 3.5, ½·… and 2·mean(w·x²) = 25."""
    w = torch.tensor(1.0, requires_grad=True)
    total, terms = CombinedLoss(0.5, 0.0, 0.1)(w * torch.tensor([3.0, 4.0]), torch.zeros(2))
    pulls = {"l1": 0.5 * 3.5, "smooth_l1": 0.0, "mse": 0.1 * 25}
    expected = {name: round(pull / sum(pulls.values()), 6) for name, pull in pulls.items()}
    assert plain(gradient_shares(total, terms, [w])) == expected
    assert expected["mse"] == 0.588235


def test_a_norm_is_over_all_parameters_and_those_without_gradient_are_skipped() -> None:
    a, b = torch.tensor([1.0], requires_grad=True), torch.tensor([1.0, 1.0], requires_grad=True)
    unused, frozen = torch.ones(3, requires_grad=True), torch.ones(3)
    terms = {"both": 3 * a.sum() + 4 * b[0], "one": -5 * b[1]}
    shares = gradient_shares(terms["both"] + 3 * terms["one"], terms, [a, unused, b, frozen])
    assert plain(shares) == {"both": 0.25, "one": 0.75}


def test_weights_that_are_learned_count_as_they_are() -> None:
    model = nn.Linear(1, 1, bias=False)
    loss = UncertaintyLoss({"l1": nn.L1Loss(), "mse": nn.MSELoss()})
    loss.s.data = torch.tensor([0.5, -0.3])
    total, terms = loss(model(torch.ones(1, 1)), model.weight.detach() - 2)  # slopes 1 and 4
    pulls = [math.exp(-0.5), 4 * math.exp(0.3)]
    expected = {
        name: round(pull / sum(pulls), 6) for name, pull in zip(("l1", "mse"), pulls, strict=True)
    }
    parameters = [*model.parameters(), *loss.parameters()]
    assert plain(gradient_shares(total, terms, parameters)) == pytest.approx(expected, abs=2e-6)


def test_a_term_the_total_is_not_computed_from_has_no_share() -> None:
    w = torch.tensor(2.0, requires_grad=True)
    terms = {"a": w * 3, "beside": w * 5, "number": torch.tensor(1.0)}
    assert plain(gradient_shares(terms["a"] + 1, terms, [w])) == {"a": 1.0}
    assert gradient_shares(w * 3, {}, [w]) == {}
    assert gradient_shares(w * 3, terms, [torch.tensor(1.0)]) == {}


def test_the_total_may_itself_be_the_only_term() -> None:
    w = torch.tensor(2.0, requires_grad=True)
    total = w * 3
    assert plain(gradient_shares(total, {"all": total}, [w])) == {"all": 1.0}


def test_without_any_pull_all_shares_are_0() -> None:
    w = torch.zeros(2, requires_grad=True)
    total, terms = CombinedLoss(0, 0, 1)(w, torch.zeros(2))
    assert plain(gradient_shares(total, terms, [w])) == {"l1": 0, "smooth_l1": 0, "mse": 0}


def test_a_gradient_beyond_float32_when_squared_still_has_its_share() -> None:
    w = torch.ones(2, requires_grad=True)
    terms = {"huge": 1e30 * w.sum(), "larger": 3e30 * w.sum()}
    assert plain(gradient_shares(terms["huge"] + terms["larger"], terms, [w])) == {
        "huge": 0.25,
        "larger": 0.75,
    }


def test_the_example_in_the_documentation_runs() -> None:
    result = doctest.testmod(shares_module, extraglobs={"torch": torch})
    assert (result.failed, result.attempted) == (0, 4)


def test_it_leaves_no_trace() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    other = copy.deepcopy(model)
    inputs, targets = torch.randn(6, 3), torch.randn(6, 2)
    generator, results = torch.get_rng_state(), []
    for net, asked in ((model, True), (other, False)):
        torch.set_rng_state(generator)
        total, terms = split_loss(CombinedLoss()(net(inputs), targets))
        after = torch.get_rng_state()
        if asked:
            gradient_shares(total, terms, net.parameters())
            assert all(parameter.grad is None for parameter in net.parameters())
        assert torch.equal(torch.get_rng_state(), after)
        total.backward()
        results.append([p.grad for p in net.parameters()] + list(net.buffers()))
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


def terms_of(w: Tensor, first: float, second: float) -> tuple[Tensor, dict[str, Tensor]]:
    terms = {"a": first * w, "b": second * w}
    return terms["a"] + terms["b"], terms


def test_batches_of_a_step_count_by_their_size_and_a_reading_begins_anew() -> None:
    w = torch.tensor(1.0, requires_grad=True)
    shares = Shares([w])
    shares.add(*terms_of(w, 1, 3), 0.75)
    shares.add(*terms_of(w, 1, 1), 0.25)
    assert shares.read(refused=False) == {"train/share/a": 0.3125, "train/share/b": 0.6875}
    assert shares.read(refused=False) == {}


@pytest.mark.parametrize(("factor", "refused"), [(1.0, True), (math.nan, False), (math.inf, False)])
def test_nothing_is_recorded_of_a_refused_step_or_of_what_is_no_number(
    factor: Any, refused: bool
) -> None:
    w = torch.tensor(1.0, requires_grad=True)
    shares = Shares([w])
    shares.add(*terms_of(w, 1, factor), 1.0)
    assert shares.read(refused) == {}
    shares.add(*terms_of(w, 1, 3), 1.0)
    assert shares.read(refused=False) == {"train/share/a": 0.25, "train/share/b": 0.75}

"""Each term's share of the gradient norm: by hand, whatever the loss, and without a trace."""

from __future__ import annotations

import copy
import doctest
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trainer.shares as shares_module
from losses.combined import CombinedLoss
from losses.gradnorm import GradNormLoss
from losses.uncertainty import UncertaintyLoss
from trainer.data.tensors import TensorData
from trainer.diagnostics import Diagnostics
from trainer.evaluation import split_loss
from trainer.guard import Skip
from trainer.loop import Trainer
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
    assert shares.read() == {"train/share/a": 0.3125, "train/share/b": 0.6875}
    assert shares.read() == {}


@pytest.mark.parametrize("factor", [math.nan, math.inf])
def test_nothing_is_recorded_where_a_share_is_no_number(factor: float) -> None:
    w = torch.tensor(1.0, requires_grad=True)
    shares = Shares([w])
    shares.add(*terms_of(w, 1, factor), 1.0)
    assert shares.read() == {}
    shares.add(*terms_of(w, 1, 3), 1.0)
    assert shares.read() == {"train/share/a": 0.25, "train/share/b": 0.75}


class Net(nn.Module):
    """Buffers and dropout: what a second look at the graph might disturb."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs)


def data(*bad: int) -> TensorData:
    """40 samples; those that are bad are huge, so that their step is refused."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(40, 3, generator=generator)
    y = x.sum(1, keepdim=True)
    y[list(bad)] = 1e38
    return TensorData((x, y), (x[:9], y[:9]), batch_size=8)


def train(source: TensorData, folder: Path, shares: bool, loss: Any = None, **settings: Any) -> Trainer:
    model, loss = Net(), loss or CombinedLoss()
    parameters = [*model.parameters(), *loss.parameters()]
    optimizer = torch.optim.Adam(parameters, 0.05)
    inside = Diagnostics(every=1, layers=False, activations=False, shares=shares)
    run = Trainer(model, loss, optimizer, log_every=3, diagnostics=inside, **settings)
    run.fit(source, folder)
    return run


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_that_records_them_is_the_same_run_bit_for_bit(tmp_path: Path, accumulate: int) -> None:
    runs = {
        wanted: train(data(), tmp_path / str(wanted), wanted, max_steps=10, accumulate=accumulate)
        for wanted in (True, False)
    }
    on, off = (run.model.state_dict() for run in (runs[True], runs[False]))
    assert all(torch.equal(on[name], off[name]) for name in off)
    for recorded, plainly in zip(lines(tmp_path / "True"), lines(tmp_path / "False"), strict=True):
        shares = {tag: value for tag, value in recorded.items() if tag.startswith("train/share/")}
        assert {tag: value for tag, value in recorded.items() if tag not in shares} == plainly
        if "train/loss" in plainly:  # the lines every three steps, and the last
            names = ("l1", "smooth_l1", "mse")
            assert list(shares) == [f"train/share/{name}" for name in names]
            assert abs(sum(shares.values()) - 1) < 1e-6
            assert min(shares.values()) > 0
    assert [line["step"] for line in lines(tmp_path / "True") if "train/share/mse" in line] == [
        3,
        6,
        9,
        10,
    ]


def test_nothing_of_a_refused_step_is_recorded(tmp_path: Path) -> None:
    train(data(*range(40)), tmp_path, True, max_steps=6, guard=Skip(max_consecutive=9))
    assert not any("train/share/l1" in line for line in lines(tmp_path))


def test_a_loss_that_weighs_its_terms_itself_is_trained_and_recorded(tmp_path: Path) -> None:
    loss = GradNormLoss({"l1": nn.L1Loss(), "mse": nn.MSELoss()})
    run = train(data(), tmp_path, True, loss, max_steps=12)
    last = lines(tmp_path)[-1]
    assert last["train/loss/weight_l1"] + last["train/loss/weight_mse"] == pytest.approx(2)
    assert last["train/loss/weight_l1"] != 1
    assert {tag for tag in last if tag.startswith("train/share/")} == {
        "train/share/l1",
        "train/share/mse",
    }
    assert run.state_dict()["loss"].keys() == {"s", "initial"}


@pytest.mark.parametrize("precision", ["fp64", "bf16"])
def test_a_loss_with_parameters_takes_the_precision_of_the_run(tmp_path: Path, precision: str) -> None:
    loss = UncertaintyLoss({"l1": nn.L1Loss(), "mse": nn.MSELoss()})
    run = train(data(), tmp_path, True, loss, max_steps=3, precision=precision)
    assert loss.s.dtype == (torch.float64 if precision == "fp64" else torch.float32)
    assert run.step == 3
    assert (loss.s != 0).all()
    assert lines(tmp_path)[0]["train/share/l1"] > 0

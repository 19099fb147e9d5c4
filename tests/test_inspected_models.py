"""Layers, memory, graph and schedule of a run that has not begun, and that they leave no trace."""

from __future__ import annotations

import copy
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from models.mlp import MLP
from models.rnn import RNN
from models.transformer import Transformer
from models.unet import UNet
from trainer.diagnostics import autograd_graph, layers, learning_rates, memory, without_normalization
from trainer.schedulers import Horizon, Schedule, cosine

INPUTS = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def unet(**settings: Any) -> UNet:
    torch.manual_seed(0)
    return UNet((1, 8, 8), (1, 8, 8), channels=4, depth=1, **settings)


def test_macs_of_convolutions_and_linear_layers_are_the_formulas() -> None:
    model = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Flatten(), nn.Linear(5 * 16, 7))
    found = layers(model, torch.ones(2, 3, 4, 4))
    assert [layer.macs for layer in found] == [3 * 5 * 9 * 16, 0, 5 * 16 * 7]
    assert [layer.parameters for layer in found] == [3 * 5 * 9 + 5, 0, 5 * 16 * 7 + 7]
    assert [layer.output for layer in found] == [(5, 4, 4), (80,), (7,)]


TOKENS = torch.zeros(2, 6, dtype=torch.int64)


def test_macs_of_a_recurrent_layer_are_its_weights_at_every_step() -> None:
    found = {layer.name: layer for layer in layers(RNN((6,), (5, 6), width=8, depth=1), TOKENS)}
    assert found["layers.0"].macs == 6 * (4 * 8 * 8 + 4 * 8 * 8)
    assert found["head"].macs == 6 * 8 * 5


def test_what_a_block_multiplies_itself_has_a_row() -> None:
    found = layers(Transformer((6,), (5, 6), width=8, depth=2, heads=2), TOKENS)
    attention = [layer.macs for layer in found if layer.kind == "Block"]
    assert attention == [2 * 6 * 6 * 8] * 2
    in_weights = 6 * (2 * 12 * 8 * 8 + 8 * 5)  # two blocks, and the head, which is the embedding's
    assert sum(layer.macs for layer in found) == in_weights + sum(attention)


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (unet(), INPUTS),
        (Transformer((6,), (5, 6), width=8, depth=2, heads=2), TOKENS),
        (RNN((6,), (5, 6), width=8), TOKENS),
    ],
    ids=["unet", "transformer", "rnn"],
)
def test_every_parameter_is_counted_once(model: nn.Module, inputs: Tensor) -> None:
    found = layers(model, inputs)
    assert sum(layer.parameters for layer in found) == sum(p.numel() for p in model.parameters())
    assert len({layer.name for layer in found}) == len(found)


def test_layers_whose_activations_vanish_or_explode_are_marked() -> None:
    torch.manual_seed(0)
    model = MLP((10,), (1,), hidden=[10] * 6, activation="tanh")
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    with torch.no_grad():
        for module in linear:
            module.weight.mul_(0.1)
            module.bias.zero_()
    marks = [layer.mark for layer in layers(model, torch.randn(8, 10))]
    assert marks[0] == ""
    assert marks[-1] == "vanishing"
    with torch.no_grad():
        linear[-1].weight.fill_(1e9)
        linear[0].weight.zero_()
    assert layers(model, torch.randn(8, 10))[0].mark == "zero"
    exploding = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    with torch.no_grad():
        exploding[1].weight.fill_(1e6)
    assert [layer.mark for layer in layers(exploding, torch.ones(2, 4))] == ["", "exploding"]
    with torch.no_grad():
        exploding[1].weight.fill_(torch.inf)
    assert layers(exploding, torch.ones(2, 4))[1].mark == "not finite"


def test_normalization_taken_out_leaves_the_model_and_the_weights() -> None:
    model = unet()
    plain = without_normalization(model)
    kinds = [type(module) for module in plain.modules()]
    assert nn.BatchNorm2d not in kinds
    assert sum(type(m) is nn.BatchNorm2d for m in model.modules()) == kinds.count(nn.Identity)
    assert torch.equal(plain.head.weight, model.head.weight)
    assert plain.head.weight is not model.head.weight


@pytest.mark.parametrize("look", [layers, autograd_graph])
def test_a_look_leaves_no_trace(look: Any) -> None:
    model = unet(dropout=0.5)
    model.encoder.eval()
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    look(model, INPUTS)
    assert torch.equal(torch.rand(3), expected)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(m._forward_hooks for m in model.modules())


def test_memory_is_what_the_tensors_take() -> None:
    model = nn.Sequential(nn.Linear(10, 20, bias=False), nn.Sigmoid(), nn.Linear(20, 3, bias=False))
    batch = (torch.randn(8, 10), torch.randn(8, 3))
    sgd = torch.optim.SGD(model.parameters(), 0.1)
    held = memory(model, nn.MSELoss(), sgd, batch)
    weights = 4 * (10 * 20 + 20 * 3)
    assert (held["parameters"], held["gradients"], held["optimizer"]) == (weights, weights, 0)
    # The sigmoid's output; predictions and targets, for the squared error.
    assert held["activations"] == 4 * (8 * 20 + 8 * 3 + 8 * 3)
    adam = torch.optim.Adam(model.parameters())
    before = [p.clone() for p in model.parameters()]
    estimated = memory(model, nn.MSELoss(), adam, batch)["optimizer"]
    assert not adam.state
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    nn.MSELoss()(model(batch[0]), batch[1]).backward()
    adam.step()
    assert estimated == memory(model, nn.MSELoss(), adam, batch)["optimizer"]
    assert estimated == 2 * weights + 4 * 2  # two moments, and a step count per tensor


def test_the_graph_has_every_parameter_by_name_and_leads_from_it_to_the_output() -> None:
    model = unet()
    graph = autograd_graph(model, INPUTS)
    parameters = {n.label: i for i, n in enumerate(graph.nodes) if n.kind == "parameter"}
    assert parameters.keys() == dict(model.named_parameters()).keys()
    after: dict[int, list[int]] = {}
    for a, b in graph.edges:
        after.setdefault(a, []).append(b)
    reached, waiting = set(), [parameters["encoder.0.0.weight"]]
    while waiting:
        reached.add(number := waiting.pop())
        waiting += [n for n in after.get(number, []) if n not in reached]
    assert "output" in {graph.nodes[number].kind for number in reached}
    modules = {node.module for node in graph.nodes if node.label == "Convolution"}
    assert modules == {n for n, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    assert {n.module for n in graph.nodes if n.label == "Cat"} == {""}  # the model's own


def test_a_frozen_parameter_is_in_no_graph() -> None:
    model = nn.Linear(2, 2)
    model.weight.requires_grad_(False)
    labels = [node.label for node in autograd_graph(model, torch.ones(2, 2)).nodes]
    assert "bias" in labels
    assert "weight" not in labels
    assert autograd_graph(model.requires_grad_(False), torch.ones(2, 2)).nodes == []


def test_without_graphviz_the_text_is_kept_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    files, advice = autograd_graph(nn.Linear(2, 2), torch.ones(2, 2)).write(tmp_path)
    assert [file.name for file in files] == ["graph.dot"]
    assert files[0].read_text(encoding="utf-8").startswith("digraph {")
    assert "needs Graphviz; install it (apt install graphviz" in advice


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz is not installed")
def test_graphviz_draws_it(tmp_path: Path) -> None:
    files, advice = autograd_graph(unet(), INPUTS).write(tmp_path)
    assert (advice, [file.name for file in files]) == ("", ["graph.dot", "graph.svg", "graph.png"])
    svg = files[1].read_text(encoding="utf-8")
    assert "encoder.0.0" in svg
    assert files[2].read_bytes().startswith(b"\x89PNG")


def test_the_learning_rates_are_those_of_the_training_and_leave_the_schedule_where_it_was() -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    horizon = Horizon(12, 3, 4)
    schedule: Schedule = cosine(optimizer, horizon, warmup=3)
    before = copy.deepcopy(schedule.state_dict())
    rates = learning_rates(schedule, horizon)
    assert schedule.state_dict() == before
    driven = []
    for _ in range(12):
        driven.append(optimizer.param_groups[0]["lr"])
        schedule.step_ended()
    assert rates == driven
    assert len(set(rates)) > 6

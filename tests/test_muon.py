"""Muon's composite: who trains what, and that groups and state are one optimizer's."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from trainer.optimizers import Muon, parameter_groups
from trainer.schedulers import Horizon, cosine


class Net(nn.Module):
    """Embedding, convolution, two hidden matrices, an output."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(7, 4)
        self.conv = nn.Conv1d(4, 4, 1)
        self.hidden = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 4))
        self.output = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(self.embedding(x).transpose(1, 2)).mean(2)
        return self.output(self.hidden(y))  # type: ignore[no-any-return]


def steps(net: nn.Module, optimizer: torch.optim.Optimizer, count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    for _ in range(count):
        optimizer.zero_grad()
        net(torch.randint(7, (5, 3), generator=generator)).square().mean().backward()
        optimizer.step()


def trained_by_muon(net: nn.Module, optimizer: Muon) -> set[str]:
    steps(net, optimizer, 1)
    own = {id(p) for p, state in optimizer.state.items() if "momentum_buffer" in state}
    assert {id(p) for p in optimizer.state} == {id(p) for p in net.parameters()}
    return {name for name, p in net.named_parameters() if id(p) in own}


def test_hidden_matrices_are_its_own_and_the_rest_is_adamws() -> None:
    net = Net()
    optimizer = Muon(parameter_groups([net], 0.1), weight_decay=0.1, model=net)
    assert trained_by_muon(net, optimizer) == {"hidden.0.weight", "hidden.2.weight"}


def test_without_a_model_every_matrix_is_hidden() -> None:
    net = Net()
    matrices = {"hidden.0.weight", "hidden.2.weight", "output.weight", "embedding.weight"}
    assert trained_by_muon(net, Muon(net.parameters())) == matrices


def test_an_embedding_that_is_the_output_too_is_adamws() -> None:
    net = nn.ModuleDict({"a": nn.Embedding(5, 4), "b": nn.Linear(4, 4), "c": nn.Linear(4, 4)})
    net["d"] = nn.Linear(4, 5)
    net["d"].weight = net["a"].weight
    optimizer = Muon(net.parameters(), model=net)
    own = {id(p) for p in optimizer.parts[0].param_groups[0]["params"]}
    assert id(net["b"].weight) in own
    assert id(net["a"].weight) not in own


def test_a_model_without_hidden_matrices_is_refused() -> None:
    for net in (nn.Conv1d(3, 3, 1), nn.Linear(3, 3), nn.LayerNorm(3)):
        with pytest.raises(ValueError, match="there is no hidden matrix for Muon to train; use "):
            Muon(net.parameters(), model=net)


def test_matrices_alone_are_enough() -> None:
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    optimizer = Muon(net.parameters())
    assert len(optimizer.parts) == len(optimizer.param_groups) == 1


def test_its_state_is_one_and_what_is_restored_reaches_both() -> None:
    nets = [Net(), Net()]
    optimizers = [Muon(net.parameters(), model=net) for net in nets]
    steps(nets[0], optimizers[0], 3)
    nets[1].load_state_dict(nets[0].state_dict())
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    for net, optimizer in zip(nets, optimizers, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = 0.3  # what a schedule does
        steps(net, optimizer, 2)
    moved: Any = zip(nets[0].parameters(), nets[1].parameters(), Net().parameters(), strict=True)
    for a, b, before in moved:
        assert torch.equal(a, b)
        assert (a - before).abs().max() > 0.1  # by the new rate


def test_emptying_its_state_empties_both() -> None:
    net = Net()
    optimizer = Muon(net.parameters(), model=net)
    steps(net, optimizer, 2)
    optimizer.state.clear()
    steps(net, optimizer, 1)
    counts = [state["step"].item() for state in optimizer.state.values() if "step" in state]
    assert set(counts) == {1.0}


def test_a_schedule_moves_both_rates() -> None:
    net = Net()
    optimizer = Muon(net.parameters(), lr=0.1, model=net)
    schedule = cosine(optimizer, Horizon(4, 1, 4))
    for _ in range(2):
        steps(net, optimizer, 1)
        schedule.step_ended()
    assert [part.param_groups[0]["lr"] for part in optimizer.parts] == pytest.approx([0.05, 0.05])


def test_a_closure_is_called_with_gradients() -> None:
    net = Net()
    optimizer = Muon(net.parameters(), model=net)

    def closure() -> torch.Tensor:
        loss = net(torch.zeros(2, 3, dtype=torch.long)).square().mean()
        loss.backward()
        return loss  # type: ignore[no-any-return]

    assert optimizer.step(closure) > 0

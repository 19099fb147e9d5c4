"""Inside the scratch place everything can change; afterwards not a bit has."""

from __future__ import annotations

import copy
from contextlib import suppress

import pytest
import torch
from broken import Forgetful, batch, model, same, tensors_of
from test_optimizers import PATHS, build
from torch import nn

from trainer.diagnostics.scratch import scratch

MSE = nn.MSELoss()


def step(network: nn.Module, optimizer: torch.optim.Optimizer, dtype: torch.dtype) -> None:
    optimizer.zero_grad()
    inputs, targets = (tensor.to(dtype) for tensor in batch())
    MSE(network(inputs), targets).backward()
    optimizer.step()


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
@pytest.mark.parametrize("loads", [False, True])
def test_a_run_goes_on_as_if_nothing_had_been(path, loads: bool) -> None:  # type: ignore[no-untyped-def]
    runs = []
    for disturbed in (False, True):
        network = model(nn.BatchNorm1d(5), Forgetful(saved=True))
        network.add_module("scale", nn.BatchNorm1d(3))
        optimizer = build(path, list(network.parameters()))
        for _ in range(2):
            step(network, optimizer, torch.float32)
        if disturbed:
            before = tensors_of(network, optimizer)
            with scratch(network, optimizer=optimizer, dtype=torch.float64):
                assert {p.dtype for p in network.parameters()} == {torch.float64}
                optimizer.param_groups[0]["lr"] = 0.7
                network.eval()
                step(network, optimizer, torch.float64)
                if loads:
                    optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
                    step(network, optimizer, torch.float64)
            assert network.training
            assert same(before, tensors_of(network, optimizer))
        for _ in range(2):
            step(network, optimizer, torch.float32)
        runs.append(tensors_of(network, optimizer))
    assert same(*runs)


def test_tensors_stay_the_objects_they_are_and_generators_go_on() -> None:
    network = model(nn.BatchNorm1d(5))
    tensors = [*network.parameters(), *network.buffers()]
    places = [tensor.data_ptr() for tensor in tensors]
    generator = torch.get_rng_state()
    with suppress(KeyError), scratch(network):
        torch.rand(3)
        assert not {tensor.data_ptr() for tensor in tensors} & set(places)
        raise KeyError
    assert [tensor.data_ptr() for tensor in tensors] == places
    assert all(a is b for a, b in zip(tensors, [*network.parameters(), *network.buffers()], strict=True))
    assert torch.equal(generator, torch.get_rng_state())

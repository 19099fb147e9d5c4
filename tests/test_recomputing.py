"""Activations computed again: less is kept, and not a bit is another."""

from __future__ import annotations

import copy
import doctest
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from models.cnn import CNN
from models.mlp import MLP
from models.rnn import RNN
from models.transformer import Transformer
from models.unet import UNet
from trainer import recomputing
from trainer.data.tensors import TensorData
from trainer.diagnostics import Diagnostics, check_extremes, check_purity
from trainer.loop import Trainer
from trainer.recomputing import recompute, recomputes

IMAGES, TEXT = ((2, 8, 8), (2, 8, 8)), ((6,), (7, 6))
MODELS: dict[str, Any] = {
    "unet": lambda: UNet(*IMAGES, channels=4, dropout=0.3),
    "cnn": lambda: CNN(IMAGES[0], (2, 8, 8), channels=4, dropout=0.3),
    "mlp": lambda: MLP(*IMAGES, hidden=(16,) * 6, norm="batch", dropout=0.3),
    "rnn": lambda: RNN(*TEXT, width=8, depth=3, dropout=0.3, norm="layer"),
    "transformer": lambda: Transformer(*TEXT, width=8, depth=4, heads=2, dropout=0.3),
}


def built(name: str, again: bool) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = MODELS[name]()
    if again:
        recompute(model)
    return model


def data(name: str) -> TensorData:
    generator = torch.Generator().manual_seed(1)
    if name in ("rnn", "transformer"):
        tokens = torch.randint(7, (8, 6), generator=generator)
        return TensorData((tokens, tokens), (tokens, tokens), batch_size=4)
    x = torch.randn(8, 2, 8, 8, generator=generator)
    return TensorData((x, -x), (x, -x), batch_size=4)


def trained(name: str, again: bool, **settings: Any) -> Trainer:
    model = built(name, False)
    loss = nn.CrossEntropyLoss() if name in ("rnn", "transformer") else nn.MSELoss()
    optimizer = torch.optim.AdamW(model.parameters(), 0.01, fused=True)
    watch = Diagnostics(every=1)
    settings = {"max_epochs": 2, "log_every": 1, "diagnostics": watch, **settings}
    run = Trainer(model, loss, optimizer, checkpoint_activations=again, **settings)
    assert run.fit(data(name))["status"] == "completed"
    return run


@pytest.mark.parametrize("name", MODELS)
def test_a_run_is_bit_for_bit_the_same(name: str) -> None:
    one, other = (trained(name, again) for again in (False, True))
    assert not recomputes(one.model)
    assert recomputes(other.model)
    states = one.model.state_dict(), other.model.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert one.record.tags == other.record.tags  # what layers and activations look like too


@pytest.mark.parametrize("name", MODELS)
def test_less_is_kept_for_the_way_back(name: str) -> None:
    def kept(again: bool) -> int:
        found: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            found[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        model = built(name, again)
        own = {p.untyped_storage().data_ptr() for p in model.parameters()}
        alive: list[Tensor] = []
        with saved_tensors_hooks(lambda t: (alive.append(t), keep(t))[1], lambda t: t):
            model(next(data(name).batches(0))[0]).sum()
        return sum(size for pointer, size in found.items() if pointer not in own)

    assert kept(True) < 0.8 * kept(False)


@pytest.mark.parametrize("check", [check_extremes, check_purity])
def test_the_checks_of_a_model_pass_as_before(check: Any) -> None:
    batch = next(data("unet").batches(0))
    assert check(built("unet", True), nn.MSELoss(), batch).passed


def test_every_operation_of_it_can_be_looked_at() -> None:
    run = trained("unet", True, detect_anomaly=True)
    assert run.record.tags == trained("unet", False).record.tags


def test_without_gradients_nothing_is_computed_twice() -> None:
    calls: list[Tensor] = []
    model = built("transformer", True)
    model.blocks[0].out.register_forward_hook(lambda module, inputs, output: calls.append(output))
    tokens = next(data("transformer").batches(0))[0]
    with torch.no_grad():
        model(tokens)
    assert len(calls) == 1
    model(tokens).sum().backward()
    assert len(calls) == 3


def test_a_copy_of_the_model_is_its_own() -> None:
    model = built("mlp", True).eval()
    twin = copy.deepcopy(model)
    x = next(data("mlp").batches(0))[0]
    before = model(x)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert twin(x).abs().max() == 0
    assert torch.equal(model(x), before)


def test_the_example_in_the_documentation_runs() -> None:
    result = doctest.testmod(recomputing)
    assert (result.failed, result.attempted) == (0, 3)

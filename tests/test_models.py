"""What holds for every model of conf/model, each on the first kind of data that it takes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import hydra.utils
import pytest
import torch
from conftest import ROOT
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from models.activations import ACTIVATIONS
from trainer.data.tensors import TensorData
from trainer.evaluation import evaluate
from trainer.loop import Trainer
from trainer.rehearsal import rehearse

PATHS = sorted((ROOT / "conf" / "model").glob("*.yaml"))
SAMPLES = 16
STACKED = [path for path in PATHS if path.stem != "rnn"]  # the fused LSTM has no batching rule

each_model = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def sources() -> dict[str, tuple[TensorData, Callable[..., Tensor]]]:
    """A kind of data each, and a loss that fits it."""
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(SAMPLES, *shape, generator=draw)

    def labels(count: int, *shape: int) -> Tensor:
        return torch.randint(0, count, (SAMPLES, *shape), generator=draw)

    def data(inputs: Tensor, targets: Tensor, output_shape: tuple[int, ...]) -> TensorData:
        both = (inputs, targets)
        return TensorData(both, both, batch_size=8, output_shape=output_shape)

    text, mse, cross_entropy = labels(7, 12), nn.MSELoss(), nn.CrossEntropyLoss()
    return {
        "text": (data(text, text.roll(-1, 1), (7, 12)), cross_entropy),
        "denoising": (data(normal(2, 8, 8), normal(3, 8, 8), (3, 8, 8)), mse),
        "classes": (data(normal(2, 8, 8), labels(4), (4,)), cross_entropy),
        "vectors": (data(normal(10), normal(2), (2,)), mse),
    }


def build(path: Path, kind: str, **knobs: Any) -> Any:
    data, _ = sources()[kind]
    shapes = {"input_shape": data.input_shape, "output_shape": data.output_shape}
    torch.manual_seed(knobs.pop("seed", 0))
    return hydra.utils.instantiate(OmegaConf.load(path), **shapes, **knobs, _convert_="all")


@cache
def kinds(path: Path) -> list[str]:
    """The kinds that the model takes; every other has to be refused in one line, here or there."""
    taken = []
    for kind, (data, loss) in sources().items():
        try:
            model = build(path, kind)
            trainer = Trainer(model, loss, torch.optim.SGD(model.parameters(), 0.1))
            rehearse(trainer, data, {"model": path.stem, "loss": "loss", "data": kind})
        except (ValueError, hydra.errors.InstantiationException) as error:
            line = str(error.__cause__ if "Error in call" in str(error) else error)
            assert len(line.splitlines()) == 1
            assert "_shape must be" in line or (path.stem in line and kind in line)
        else:
            taken.append(kind)
    assert taken
    return taken


def example(path: Path, **knobs: Any) -> tuple[Any, Tensor]:
    kind = kinds(path)[0]
    return build(path, kind, **knobs), sources()[kind][0].train[0]


def knobs_of(path: Path) -> list[dict[str, Any]]:
    """As it is, and with every activation and with dropout, where it takes them."""
    known = OmegaConf.load(path)
    varied: list[dict[str, Any]] = [{"activation": name} for name in ACTIVATIONS] + [{"dropout": 0.2}]
    return [{}, *(knobs for knobs in varied if knobs.keys() <= known.keys())]


VARIED = [
    pytest.param(path, knobs, id=f"{path.stem}-{'-'.join(map(str, knobs.values())) or 'as it is'}")
    for path in PATHS
    for knobs in knobs_of(path)
]


@each_model
def test_trains_on_every_kind_it_takes(path: Path) -> None:
    for kind in kinds(path):
        model, (data, loss) = build(path, kind), sources()[kind]
        trainer = Trainer(model, loss, torch.optim.Adam(model.parameters(), 1e-2), max_epochs=20)
        before = evaluate(model, loss, data.validation(), {}, nullcontext)["loss"]
        after = trainer.fit(data)["metrics"]["val/loss"]["last"]  # of the samples it was trained on
        assert after < 0.8 * before, kind
        assert trainer.guard.skipped == 0


@pytest.mark.parametrize(("path", "knobs"), VARIED)
def test_every_parameter_receives_a_gradient(path: Path, knobs: dict[str, Any]) -> None:
    model, inputs = example(path, **knobs)
    model(inputs).square().mean().backward()
    silent = [
        name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().max() > 0
    ]
    assert silent == []


@each_model
def test_evaluation_draws_nothing_and_takes_a_single_sample(path: Path) -> None:
    model, inputs = example(path, dropout=0.5)
    model(inputs)  # moves the statistics of a batch normalization off their start
    model.eval()
    outputs = model(inputs)
    assert torch.equal(model(inputs), outputs)
    torch.testing.assert_close(model(inputs[:1]), outputs[:1])


@each_model
def test_dropout_draws_anew_at_every_pass_in_training(path: Path) -> None:
    model, inputs = example(path, dropout=0.5)
    assert not torch.equal(model(inputs), model(inputs))


@each_model
def test_state_makes_another_the_same(path: Path) -> None:
    (model, inputs), (other, _) = example(path), example(path, seed=1)
    model(inputs)
    model.eval(), other.eval()
    assert not torch.equal(other(inputs), model(inputs))
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(inputs), model(inputs))


@each_model
def test_the_seed_decides_on_every_parameter(path: Path) -> None:
    first, second = (example(path)[0].parameters() for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@each_model
def test_float64_and_bfloat16_are_the_same_model(path: Path) -> None:
    model, inputs = example(path)
    model.eval()
    outputs = model(inputs)
    with torch.autocast("cpu", torch.bfloat16):
        coarse = model(inputs)
    assert coarse.dtype == torch.bfloat16
    scale = outputs.abs().max().item()
    torch.testing.assert_close(coarse.float(), outputs, rtol=0, atol=0.05 * scale)
    fine = model.double()(inputs.double() if inputs.is_floating_point() else inputs)
    assert fine.dtype == torch.float64
    torch.testing.assert_close(fine.float(), outputs, rtol=0, atol=1e-4 * scale)


def gradients(base: nn.Module, inputs: Tensor) -> Callable[..., dict[str, Tensor]]:
    def loss(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        return functional_call(base, (parameters, buffers), (inputs,)).square().mean()

    return grad(loss)


@pytest.mark.parametrize("path", STACKED, ids=lambda path: path.stem)
@pytest.mark.parametrize("training", [True, False])
def test_stacked_members_have_the_gradients_each_has_alone(path: Path, training: bool) -> None:
    members = [example(path, seed=seed)[0].double().train(training) for seed in range(3)]
    inputs = example(path)[1]
    inputs = inputs.double() if inputs.is_floating_point() else inputs
    gradient = gradients(copy.deepcopy(members[0]), inputs)
    # The CPU's fused attention has no batching rule, torch would warn and loop over the members.
    with sdpa_kernel(SDPBackend.MATH):
        state = stack_module_state(members)
        stacked = vmap(gradient)(*state)
        for index, member in enumerate(members):
            parameters, buffers = dict(member.named_parameters()), dict(member.named_buffers())
            for name, alone in gradient(parameters, buffers).items():
                torch.testing.assert_close(stacked[name][index], alone)

"""The rehearsal names parts that do not fit, and changes nothing."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from losses.combined import CombinedLoss
from losses.cross_entropy import CrossEntropy
from losses.masked import MaskedLoss
from trainer.data.tensors import Batch, TensorData
from trainer.loop import Trainer
from trainer.metrics import Metric, accuracy, psnr
from trainer.rehearsal import rehearse

NAMES = {"model": "model=mine", "loss": "loss=yours", "data": "data=theirs"}


def batch(inputs: int = 3, *targets: int, samples: int = 6) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(samples, inputs, generator=generator),
        torch.randn(samples, *targets, generator=generator),
    )


def data(train: Batch, val: Batch | None = None, **metrics: Metric) -> TensorData:
    return TensorData(train, train if val is None else val, batch_size=2, metrics=metrics)


def trainer(model: nn.Module, loss: Any = None, **settings: Any) -> Trainer:
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    return Trainer(model, loss or nn.MSELoss(), optimizer, **settings)


def refusal(rehearsed: Trainer, source: TensorData) -> str:
    with pytest.raises(ValueError, match="=") as caught:
        rehearse(rehearsed, source, NAMES)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


@pytest.mark.parametrize("loss", [nn.MSELoss(), CombinedLoss()])
@pytest.mark.parametrize("precision", ["fp64", "fp32", "bf16", "fp16"])
@pytest.mark.parametrize("val", [None, batch(3, 1, samples=0)], ids=["validated", "not validated"])
def test_parts_that_fit_pass(loss: nn.Module, precision: str, val: Batch | None) -> None:
    source = data(batch(3, 1), val, psnr=Metric(psnr, True))
    rehearse(trainer(nn.Linear(3, 1), loss, precision=precision), source, NAMES)


def test_a_model_that_does_not_take_the_inputs_is_named_with_their_shape() -> None:
    line = refusal(trainer(nn.Linear(4, 1)), data(batch(3, 1)))
    assert line.startswith("model=mine does not take the inputs of data=theirs, (3,) float32 a sample")
    assert "RuntimeError" in line


@pytest.mark.parametrize("targets", [(1,), ()], ids=str)
@pytest.mark.parametrize("samples", [1, 6])
def test_a_prediction_that_would_be_stretched_to_the_targets_is_named(
    targets: tuple[int, ...], samples: int
) -> None:
    """(B, 1) against (B,) is broadcast to (B, B): torch only warns, and the loss is wrong."""
    model: nn.Module = nn.Linear(3, 1)
    if targets:
        model = nn.Sequential(model, nn.Flatten(0))
    line = refusal(trainer(model), data(batch(3, *targets, samples=samples)))
    shapes = ("()", "(1,)") if targets else ("(1,)", "()")
    assert line.startswith("loss=yours does not fit model=mine predicting ")
    assert f"predicting {shapes[0]} float32 and data=theirs with targets {shapes[1]} float32" in line


@pytest.mark.parametrize(
    ("loss", "train"),
    [
        (nn.MSELoss(), batch(3, 5)),
        (nn.CrossEntropyLoss(), (batch()[0], torch.arange(6))),
        (nn.CrossEntropyLoss(), batch(3)),
    ],
    ids=["another width", "labels out of range", "labels that are no whole numbers"],
)
def test_a_loss_that_does_not_fit_the_targets_is_named(loss: nn.Module, train: Batch) -> None:
    train = (train[0], train[1].flip(0))  # two samples are rehearsed: they have to be bad ones
    line = refusal(trainer(nn.Linear(3, 2), loss), data(train))
    assert line.startswith("loss=yours does not fit model=mine predicting (2,) float32")


class NextToken(nn.Module):
    """Tokens (B, T) to logits (B, V, T)."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.table = nn.Embedding(vocabulary, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.table(tokens).transpose(1, 2)


def text(length: int = 4, vocabulary: int = 7) -> Batch:
    tokens = torch.arange(6 * length).reshape(6, length) % vocabulary
    return tokens, tokens.roll(-1, 1)


@pytest.mark.parametrize("precision", ["fp64", "fp32", "bf16", "fp16"])
def test_logits_for_every_token_fit_a_label_for_every_token(precision: str) -> None:
    rehearsed = trainer(NextToken(7), nn.CrossEntropyLoss(), precision=precision)
    rehearse(
        rehearsed,
        data(text(), acc=Metric(lambda p, t: (p.argmax(1) == t).double().mean(1), True)),
        NAMES,
    )


@pytest.mark.parametrize(
    ("model", "source", "line"),
    [
        (
            NextToken(7),
            batch(4, 4),
            "model=mine does not take the inputs of data=theirs, (4,) float32 a",
        ),
        (nn.Linear(4, 7), text(), "model=mine does not take the inputs of data=theirs, (4,) int64 a"),
        (
            NextToken(7),
            (text()[0], text(5)[0]),
            "loss=yours does not fit model=mine predicting (7, 4) float32 and data=theirs with targets "
            "(5,) int64, a sample",
        ),
    ],
    ids=["numbers for tokens", "tokens for numbers", "labels for another length"],
)
def test_a_text_that_does_not_fit_is_named_with_its_shape(
    model: nn.Module, source: Batch, line: str
) -> None:
    assert refusal(trainer(model, nn.CrossEntropyLoss()), data(source)).startswith(line)


LABELS = (batch()[0], torch.arange(6) % 2)


@pytest.mark.parametrize(
    ("loss", "train", "why"),
    [
        (
            CrossEntropy(),
            batch(3, 2),
            "got (2, 2) for (2, 2); for targets like the predictions use loss=mse",
        ),
        (MaskedLoss(), batch(3, 2), "got one tensor; for targets like the predictions use loss=mse"),
        (nn.MSELoss(), LABELS, "; for labels use loss=cross_entropy"),
        (
            nn.HuberLoss(),
            (batch()[0], torch.ones(6, 2).long()),
            "Float; for labels use loss=cross_entropy",
        ),
        (MaskedLoss(), LABELS, "got one tensor; for labels use loss=cross_entropy"),
    ],
    ids=["labels asked", "masks asked", "labels", "labels as wide", "no masks"],
)
def test_a_loss_for_another_kind_of_target_is_told_which_to_use(
    loss: nn.Module, train: Batch, why: str
) -> None:
    """torch's huber takes whole numbers as wide as the predictions, and fails on the way back only."""
    line = refusal(trainer(nn.Linear(3, 2), loss), data(train))
    assert line.startswith("loss=yours does not fit model=mine predicting (2,) float32 and data=theirs")
    assert why in line


def test_the_loss_that_has_failed_is_not_recommended() -> None:
    names = {**NAMES, "loss": "loss=cross_entropy"}
    labels = (batch()[0], torch.arange(6).flip(0))  # out of range
    with pytest.raises(ValueError, match="does not fit") as caught:
        rehearse(trainer(nn.Linear(3, 2), CrossEntropy()), data(labels), names)
    assert "use loss=" not in str(caught.value)


def test_a_loss_that_does_not_depend_on_the_predictions_is_named() -> None:
    line = refusal(trainer(nn.Linear(3, 1), lambda p, t: t.mean()), data(batch(3, 1)))
    assert line.startswith("loss=yours does not fit model=mine predicting (1,)")
    assert "does not require grad" in line


class Counting(nn.MSELoss):
    """Keeps a statistic of the training calls."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, predictions: Tensor, targets: Tensor) -> Tensor:
        if self.training:
            self.calls += 1
        return super().forward(predictions, targets)


def test_a_rehearsal_does_not_feed_the_statistics_of_a_loss() -> None:
    loss = Counting()
    rehearse(trainer(nn.Linear(3, 1), loss), data(batch(3, 1)), NAMES)
    assert loss.calls == 0
    assert loss.training


@pytest.mark.parametrize(
    ("loss", "returned"),
    [
        (nn.MSELoss(reduction="none"), r"(1,) float32"),
        (lambda p, t: 0.5, "float"),
        (lambda p, t: ((p - t).flatten(), {}), "() float32"),
    ],
)
def test_a_loss_that_returns_no_scalar_is_named(loss: Callable[..., Any], returned: str) -> None:
    line = refusal(trainer(nn.Linear(3, 1), loss), data(batch(3, 1)))
    assert line.startswith(f"loss=yours must return a scalar, got {returned} for model=mine")


def test_a_metric_that_does_not_fit_is_named() -> None:
    labels = (batch()[0], torch.zeros(6, dtype=torch.int64))
    good, bad = Metric(accuracy, True), Metric(lambda p, t: p @ t, True)
    rehearse(trainer(nn.Linear(3, 2), nn.CrossEntropyLoss()), data(labels, acc=good), NAMES)
    line = refusal(trainer(nn.Linear(3, 2), nn.CrossEntropyLoss()), data(labels, mine=bad))
    assert "does not fit model=mine predicting (2,) float32 and data=theirs" in line


def test_training_data_that_does_not_fit_is_found_beside_validation_data_that_does() -> None:
    line = refusal(trainer(nn.Linear(3, 1)), data(batch(4, 1), batch(3, 1)))
    assert "(4,) float32" in line


def test_several_targets_are_rehearsed_and_named_together() -> None:
    inputs, values = batch(3, 1)
    source = data((inputs, (values, values > 0)))

    def masked(predictions: Tensor, targets: tuple[Tensor, Tensor]) -> Tensor:
        return (predictions - targets[0])[targets[1]].square().sum()

    rehearse(trainer(nn.Linear(3, 1), masked), source, NAMES)
    line = refusal(trainer(nn.Linear(3, 1)), source)
    assert line.startswith("loss=yours does not fit model=mine predicting (1,) float32")
    assert "with targets ((1,) float32, (1,) bool), a sample" in line


class Stateful(nn.Module):
    """Everything that a forward pass may change in a model that behaves."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs)


class Draws(nn.Linear):
    """Draws in evaluation too, as a diffusion model does."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs + torch.randn_like(inputs))


def noisy(inputs: Tensor, targets: Tensor, generator: torch.Generator) -> Batch:
    return inputs + torch.randn(inputs.shape, generator=generator), targets


@pytest.mark.parametrize("val", [None, batch(3, 1, samples=0)], ids=["validated", "not validated"])
@pytest.mark.parametrize("model", [Stateful(), Draws(3, 1)], ids=["dropout", "draws"])
@pytest.mark.parametrize("fits", [True, False])
def test_a_rehearsal_changes_nothing(model: nn.Module, val: Batch | None, fits: bool) -> None:
    source = data(batch(3, 1), val)
    source.transform = noisy
    rehearsed = trainer(model, nn.MSELoss() if fits else nn.MSELoss(reduction="none"))
    before = copy.deepcopy(model.state_dict())
    generators = torch.get_rng_state(), np.random.get_state()[1], random.getstate()
    if fits:
        rehearse(rehearsed, source, NAMES)
    else:
        refusal(rehearsed, source)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(module.training for module in model.modules())
    assert rehearsed.optimizer.state_dict()["state"] == {}
    assert torch.equal(torch.get_rng_state(), generators[0])
    assert (np.random.get_state()[1] == generators[1]).all()
    assert random.getstate() == generators[2]

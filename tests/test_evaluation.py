"""Evaluation: exact means over unequal batches, and the model is afterwards as it was."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from losses.combined import CombinedLoss
from trainer.data.tensors import Batch, TensorData
from trainer.evaluation import evaluate, image_samples, split_loss
from trainer.metrics import Metric
from trainer.precision import Precision


def squared(predictions: Tensor, targets: Tensor) -> Tensor:
    return (predictions - targets).square().flatten(1).mean(1)


METRICS = {"error": Metric(squared, higher_is_better=False)}


def net(dtype: torch.dtype = torch.float32) -> nn.Module:
    """Has buffers, dropout, and has seen some training."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
    model.to(dtype)(torch.randn(50, 3, dtype=dtype))
    return model


def samples(dtype: torch.dtype = torch.float32) -> Batch:
    generator = torch.Generator().manual_seed(1)
    wide = torch.randn(17, 5, generator=generator, dtype=torch.float64).to(dtype)
    return wide[:, :3], wide[:, 3:]


def split(batch: Batch, *ends: int) -> Iterator[Batch]:
    inputs, targets = batch
    for first, last in pairwise((0, *ends, len(inputs))):
        yield inputs[first:last], targets[first:last]


def reference(model: nn.Module, batch: Batch) -> Tensor:
    """The squared error of every sample, in float64."""
    wide = copy.deepcopy(model).double().eval()
    inputs, targets = (tensor.double() for tensor in batch)
    return squared(wide(inputs), targets).detach()


@pytest.mark.parametrize("ends", [(), (16,), (1, 2), (8, 16), tuple(range(1, 17))], ids=str)
def test_the_means_are_over_samples_however_they_are_batched(ends: tuple[int, ...]) -> None:
    model, batch = net(), samples()
    values = evaluate(model, nn.MSELoss(), split(batch, *ends), METRICS, nullcontext)
    expected = reference(model, batch).mean().item()
    assert values == pytest.approx({"loss": expected, "error": expected}, rel=1e-6)


@pytest.mark.parametrize("name", ["loss", "error"])
def test_float64_is_not_narrowed_on_the_way(name: str) -> None:
    model, batch = net(torch.float64), samples(torch.float64)
    values = evaluate(model, nn.MSELoss(), split(batch, 5), METRICS, nullcontext)
    assert values[name] == pytest.approx(reference(model, batch).mean().item(), rel=1e-12)


def test_a_loss_with_terms_counts_by_its_total() -> None:
    model, batch = net(), samples()
    terms = CombinedLoss(alpha=0, beta=0, gamma=1)
    values = evaluate(model, terms, split(batch, 9), {}, nullcontext)
    assert values == pytest.approx(evaluate(model, nn.MSELoss(), [batch], {}, nullcontext))


def test_without_batches_there_is_nothing_to_record() -> None:
    assert evaluate(net(), nn.MSELoss(), [], METRICS, nullcontext) == {}


def test_a_value_that_is_not_finite_is_shown_as_it_is() -> None:
    inputs, targets = samples()
    targets[3, 0] = float("inf")
    values = evaluate(net(), nn.MSELoss(), [(inputs, targets)], METRICS, nullcontext)
    assert values == {"loss": float("inf"), "error": float("inf")}


def test_metrics_see_float32_where_the_model_computes_in_bfloat16() -> None:
    seen: list[torch.dtype] = []

    def metric(predictions: Tensor, targets: Tensor) -> Tensor:
        seen.append(predictions.dtype)
        return squared(predictions, targets)

    autocast = Precision("bf16", torch.device("cpu")).autocast
    model, batch = net(), samples()
    values = evaluate(model, nn.MSELoss(), [batch], {"error": Metric(metric, False)}, autocast)
    assert seen == [torch.float32]
    assert values["error"] == pytest.approx(reference(model, batch).mean().item(), rel=0.05)


def test_metrics_see_complex_predictions_and_several_targets_as_they_are() -> None:
    seen: list[torch.dtype] = []

    def metric(predictions: Tensor, targets: tuple[Tensor, Tensor]) -> Tensor:
        seen.extend(t.dtype for t in (predictions, *targets))
        return (predictions - targets[0]).abs().flatten(1).mean(1)

    def loss(predictions: Tensor, targets: tuple[Tensor, Tensor]) -> Tensor:
        return (predictions - targets[0]).abs().square().mean()

    target = torch.tensor([[1j], [2 + 0j]])
    batch = (torch.zeros(2, 1, dtype=torch.complex64), (target, target.real > 1))
    values = evaluate(nn.Identity(), loss, [batch], {"error": Metric(metric, False)}, nullcontext)
    assert values == pytest.approx({"loss": 2.5, "error": 1.5})
    assert seen == [torch.complex64, torch.complex64, torch.bool]


def test_split_loss_takes_a_tensor_or_a_tensor_and_its_terms() -> None:
    total, terms = torch.tensor(2.0), {"a": torch.tensor(1.0)}
    assert split_loss(total) == (total, {})
    assert split_loss((total, terms)) == (total, terms)


def images(samples: int = 12, channels: int = 1) -> TensorData:
    pictures = torch.rand(samples, channels, 8, 8, generator=torch.Generator().manual_seed(0))
    return TensorData((pictures, pictures), (pictures, pictures), batch_size=1)


def picture_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 1, 3, padding=1), nn.BatchNorm2d(1), nn.Dropout(0.5))


def run_evaluate(model: nn.Module) -> None:
    evaluate(model, nn.MSELoss(), images().validation(), METRICS, nullcontext)


def run_images(model: nn.Module) -> None:
    assert image_samples(model, images(), nullcontext) is not None


@pytest.mark.parametrize("run", [run_evaluate, run_images])
@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_afterwards_as_it_was(run: Any, training: bool) -> None:
    model = picture_net().train(training)
    before, generator = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    run(model)
    assert [module.training for module in model.modules()] == [training] * 4
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), generator)


@pytest.mark.parametrize("run", [run_evaluate, run_images])
def test_a_part_that_was_frozen_stays_frozen(run: Any) -> None:
    model = picture_net().train()
    model[1].eval()
    run(model)
    assert [module.training for module in model.modules()] == [True, True, False, True]


class Counts(nn.MSELoss):
    """Keeps a statistic of the training calls, and has a part that is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.part = nn.Dropout().eval()
        self.calls = 0

    def forward(self, predictions: Tensor, targets: Tensor) -> Tensor:
        self.calls += self.training
        return super().forward(predictions, targets)


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_does_not_feed_the_statistics_of_a_loss(training: bool) -> None:
    loss = Counts()
    loss.training = training
    evaluate(net(), loss, [samples()], METRICS, nullcontext)
    assert loss.calls == 0
    assert (loss.training, loss.part.training) == (training, False)


@pytest.mark.parametrize(
    ("count", "shown"), [(1, [0]), (3, [0, 2, 4]), (4, [0, 2, 4, 6]), (5, [*range(5)]), (9, [*range(8)])]
)
def test_the_pictures_are_from_all_over_the_first_batch(count: int, shown: list[int]) -> None:
    model, data = picture_net().double(), images().to(torch.device("cpu"), torch.float64)
    pictures = image_samples(model, data, nullcontext, count)
    assert pictures is not None
    inputs, targets = (tensor[shown] for tensor in data.val)
    expected = (inputs, model.eval()(inputs).detach(), targets)
    for picture, tensor in zip(pictures, expected, strict=True):
        assert (picture.dtype, picture.device.type) == (torch.float32, "cpu")
        torch.testing.assert_close(picture, tensor.float())


@pytest.mark.parametrize(
    ("inputs", "targets"),
    [
        (torch.rand(4, 3), torch.rand(4, 1)),
        (torch.rand(4, 1, 8, 8), torch.zeros(4, dtype=torch.int64)),
        (torch.rand(4, 2, 8, 8), torch.rand(4, 2, 8, 8)),
        (torch.zeros(4, 1, 8, 8, dtype=torch.int64), torch.rand(4, 1, 8, 8)),
        (torch.rand(0, 1, 8, 8), torch.rand(0, 1, 8, 8)),
        (torch.rand(4, 1, 8, 8), (torch.rand(4, 1, 8, 8), torch.rand(4, 1, 8, 8) > 0.5)),
    ],
    ids=["vectors", "labels", "two channels", "whole numbers", "no validation", "several targets"],
)
def test_what_is_no_picture_is_not_shown(inputs: Tensor, targets: Tensor) -> None:
    train = (torch.rand(4, 1, 8, 8), torch.rand(4, 1, 8, 8))
    data = TensorData(train, (inputs, targets), batch_size=4)
    assert image_samples(nn.Identity(), data, nullcontext) is None

"""Validation metrics against their formulas."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from trainer.metrics import Metric, absolute_error, accuracy, bits_per_label, explained, psnr


@pytest.mark.parametrize("peak", [1.0, 255.0])
def test_psnr_is_the_formula_per_sample(peak):
    torch.manual_seed(0)
    target = peak * torch.rand(6, 1, 8, 8)
    prediction = target + peak * 0.1 * torch.randn(6, 1, 8, 8)
    difference = prediction.double().numpy() - target.double().numpy()
    expected = 10 * np.log10(peak**2 / (difference**2).mean(axis=(1, 2, 3)))
    np.testing.assert_allclose(psnr(prediction, target, peak=peak).numpy(), expected, rtol=1e-5)


def test_psnr_of_a_known_error():
    target = torch.zeros(1, 4, 4)
    assert psnr(target + 0.1, target).item() == pytest.approx(20.0, abs=1e-4)


def test_psnr_averages_decibels_and_not_errors():
    target = torch.zeros(2, 4)
    prediction = torch.stack([torch.full((4,), 0.1), torch.full((4,), 0.01)])
    assert psnr(prediction, target).mean().item() == pytest.approx(30.0, abs=1e-4)


def test_psnr_of_a_perfect_prediction_is_finite():
    target = torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(psnr(target, target), torch.full((3,), 100.0))


def test_accuracy_says_of_each_sample_whether_its_largest_logit_is_the_label():
    logits = torch.tensor([[0.1, 2.0, 0.3], [5.0, -1.0, 4.9], [0.0, 1.0, 2.0]])
    assert accuracy(logits, torch.tensor([1, 2, 2])).tolist() == [1.0, 0.0, 1.0]


def test_accuracy_of_several_labels_is_their_share_per_sample():
    logits = torch.zeros(2, 3, 4)
    logits[:, 1] = 1
    labels = torch.tensor([[1, 1, 0, 2], [1, 1, 1, 1]])
    assert accuracy(logits, labels).tolist() == [0.5, 1.0]


def test_bits_of_a_guess_among_equals_are_the_logarithm_of_their_number():
    labels = torch.randint(8, (3, 5), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(bits_per_label(torch.zeros(3, 8, 5), labels), torch.full((3,), 3.0))


def test_bits_are_what_an_ideal_code_would_take():
    probabilities = torch.tensor([0.5, 0.25, 0.125, 0.125])
    logits = probabilities.log()[None, :, None].expand(1, 4, 4) + 7  # a constant changes nothing
    assert bits_per_label(logits, torch.tensor([[0, 1, 2, 3]])).item() == pytest.approx(9 / 4)
    assert bits_per_label(logits[..., 0], torch.tensor([2])).item() == pytest.approx(3)


def test_the_absolute_error_is_in_the_units_of_each_column():
    predictions, targets = torch.zeros(2, 2), torch.tensor([[1.0, -2.0], [0.0, 0.5]])
    assert absolute_error(predictions, targets, [10.0, 1.0]).tolist() == [6.0, 0.25]
    assert absolute_error(predictions, targets, [10.0]).tolist() == [15.0, 2.5]


def test_what_is_explained_averages_to_r_squared():
    rng = np.random.default_rng(0)
    targets, noise = rng.normal(size=(50, 2)) * (1, 20), rng.normal(size=(50, 2))
    values = explained(torch.tensor(targets + noise), torch.tensor(targets), targets.var(0).tolist())
    expected = 1 - (noise**2).sum(0) / ((targets - targets.mean(0)) ** 2).sum(0)
    assert values.mean().item() == pytest.approx(expected.mean())


def test_a_metric_cannot_be_changed_after_the_fact():
    metric = Metric(psnr, higher_is_better=True)
    with pytest.raises(dataclasses.FrozenInstanceError):
        metric.higher_is_better = False

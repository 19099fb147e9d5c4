"""Validation metrics against their formulas."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from trainer.metrics import Metric, accuracy, psnr


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


def test_a_metric_cannot_be_changed_after_the_fact():
    metric = Metric(psnr, higher_is_better=True)
    with pytest.raises(dataclasses.FrozenInstanceError):
        metric.higher_is_better = False

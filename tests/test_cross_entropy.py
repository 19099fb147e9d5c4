"""Cross-entropy: torch's own, the z-loss, labels that do not count, what is no label."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from losses.cross_entropy import CrossEntropy


def batch(*rest: int, classes: int = 5, samples: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(samples, classes, *rest, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), torch.randint(classes, (samples, *rest), generator=generator)


def test_equal_logits_cost_the_logarithm_of_the_number_of_classes() -> None:
    loss, terms = CrossEntropy()(torch.zeros(3, 10), torch.tensor([0, 4, 9]))
    assert round(loss.item(), 4) == 2.3026
    assert list(terms) == ["cross_entropy"]


@pytest.mark.parametrize("rest", [(), (7,), (3, 2)], ids=["classes", "text", "pixels"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("ignored", [0, 1])
def test_the_value_and_gradient_are_torchs(
    rest: tuple[int, ...], smoothing: float, ignored: int
) -> None:
    logits, labels = batch(*rest)
    labels[:ignored] = -100
    loss, terms = CrossEntropy(label_smoothing=smoothing)(logits, labels)
    expected = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0)
    assert terms == {"cross_entropy": loss}
    slopes = [torch.autograd.grad(value, logits)[0] for value in (loss, expected)]
    torch.testing.assert_close(*slopes, rtol=1e-12, atol=1e-16)


def test_the_z_loss_is_the_mean_square_of_the_log_partition() -> None:
    logits, labels = batch(6)
    labels[1, 2:] = -100
    loss, terms = CrossEntropy(z_loss=1e-2)(logits, labels)
    z = logits.exp().sum(1).log()[labels != -100].square().mean()
    torch.testing.assert_close(terms["z_loss"], z)
    torch.testing.assert_close(loss, terms["cross_entropy"] + 1e-2 * z)
    assert list(terms) == ["cross_entropy", "z_loss"]


def test_the_z_loss_holds_the_shift_that_cross_entropy_does_not_see() -> None:
    logits, labels = batch()
    (plain,) = torch.autograd.grad(CrossEntropy()(logits + 50, labels)[0], logits)
    (held,) = torch.autograd.grad(CrossEntropy(z_loss=1e-2)(logits + 50, labels)[0], logits)
    assert plain.sum().abs() < 1e-12
    assert held.sum() > 0.5


@pytest.mark.parametrize("z_loss", [0.0, 1e-4])
def test_a_batch_without_a_label_that_counts_is_0_with_gradient_0(z_loss: float) -> None:
    logits, labels = batch(3)
    loss, _ = CrossEntropy(z_loss=z_loss, ignore_index=2)(logits, torch.full_like(labels, 2))
    assert loss == 0
    (slope,) = torch.autograd.grad(loss, logits)
    assert (slope == 0).all()
    assert functional.cross_entropy(logits, labels * 0 - 100).isnan()  # torch's own


def test_logits_of_half_precision_are_summed_in_float32() -> None:
    logits = torch.full((1, 1000), 1e-2).bfloat16()
    loss, _ = CrossEntropy()(logits, torch.tensor([0]))
    assert loss.dtype == torch.float32
    assert abs(loss.item() - math.log(1000)) < 1e-5


def test_a_weight_for_each_member_gives_each_members_own_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 5, 6, generator=generator)
    labels = torch.randint(5, (3, 4, 6), generator=generator)
    labels[1] = -100
    weights = torch.tensor([0.0, 1e-2, 1.0])
    total, terms = CrossEntropy(0.1, weights)(logits, labels)
    for k in range(3):
        own, parts = CrossEntropy(0.1, weights[k])(logits[k], labels[k])
        torch.testing.assert_close(total[k], own)
        torch.testing.assert_close({name: term[k] for name, term in terms.items()}, parts)
    plain = CrossEntropy(0.1, 1e-2)
    torch.testing.assert_close(torch.vmap(plain)(logits, labels)[0][1], total[1])


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.rand(4, 5), "targets must be labels (B, …) for logits (B, C, …), got (4, 5) for (4, 5)"),
        (torch.zeros(4, 1, dtype=torch.int64), "got (4, 1) for (4, 5)"),
        (torch.rand(4), "targets must be int64 labels, got float32"),
        (torch.zeros(4, dtype=torch.int32), "targets must be int64 labels, got int32"),
        ((torch.zeros(4), torch.zeros(4)), "targets must be labels in one int64 tensor, got a tuple"),
    ],
)
def test_targets_that_are_no_labels_are_refused(targets: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        CrossEntropy()(batch()[0], targets)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label_smoothing": 1.1}, "label_smoothing must be a number >= 0 and <= 1, got 1.1"),
        ({"label_smoothing": math.nan}, "label_smoothing must be a number >= 0 and <= 1, got nan"),
        ({"z_loss": -1e-4}, "z_loss must be a finite number >= 0, got -0.0001"),
        ({"ignore_index": 0.5}, "ignore_index must be a whole number, got 0.5"),
    ],
)
def test_an_argument_out_of_range_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        CrossEntropy(**arguments)

"""The masked loss: values by hand, what it does not see, empty sides, the image, what is no target."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from losses.masked import MaskedLoss

DTYPE = torch.float64


def plane(seed: int = 0, samples: int = 2, size: int = 8) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Predictions, and a ring in the shifted Fourier plane with its mask and its image."""
    generator = torch.Generator().manual_seed(seed)
    shape = (samples, 1, size, size)
    centre = torch.arange(size) - size // 2
    radius = (centre[:, None].square() + centre[None, :].square()).sqrt()
    mask = ((radius > 1) & (radius < 3)).expand(shape)
    noise = torch.fft.fft2(
        torch.randn(shape, generator=generator, dtype=DTYPE)
    )  # Hermitian: a real image
    target = torch.fft.fftshift(noise, (-2, -1)) * mask
    image = torch.fft.ifft2(torch.fft.ifftshift(target, (-2, -1))).real
    predictions = torch.randn(shape, generator=generator, dtype=DTYPE)
    return predictions, target, mask, image


def test_the_value_worked_out_by_hand() -> None:
    """std([1, 2, 3, 6]) = √(14/3), std([2, 0, 0, 2]) = √(4/3), both with n − 1."""
    predictions, target = torch.tensor([[1.0, 2.0, 3.0, 6.0]]), torch.tensor([[2.0, 0.0, 0.0, 2.0]])
    mask = torch.tensor([[True, False, False, True]])
    loss, terms = MaskedLoss()(predictions, (target, mask))
    p, t = math.sqrt(14 / 3), math.sqrt(4 / 3)
    foreground = ((1 / p - 2 / t) ** 2 + (6 / p - 2 / t) ** 2) / 2
    background = ((2 / p) ** 2 + (3 / p) ** 2) / 2
    assert round(foreground, 4) == 1.3518
    assert round(background, 4) == 1.3929
    assert {name: round(term.item(), 4) for name, term in terms.items()} == {
        "foreground": 1.3518,
        "background": 1.3929,
    }
    assert round(loss.item(), 4) == 1.4911


@pytest.mark.parametrize("factor", [1e-3, 1.0, 1e6])
def test_any_multiple_of_the_modulus_is_right(factor: float) -> None:
    _, target, mask, image = plane()
    for predictions in (target.abs(), target):
        loss, terms = MaskedLoss()(factor * predictions, (target, mask, image))
        assert loss < 1e-8
        assert list(terms) == ["foreground", "background", "image"]


def test_complex_counts_by_its_modulus() -> None:
    _, target, mask, _ = plane()
    turned = target * torch.exp(1j * torch.rand(target.shape, dtype=DTYPE))
    value = MaskedLoss()(turned, (target, mask))[0]
    torch.testing.assert_close(value, MaskedLoss()(target.abs(), (target.abs(), mask))[0])


def test_the_image_sees_the_phase_that_the_modulus_does_not() -> None:
    _, target, mask, image = plane()
    turned = target * torch.exp(1j * torch.rand(target.shape, dtype=DTYPE))
    _, terms = MaskedLoss()(turned, (target, mask, image))
    assert terms["foreground"] < 1e-10
    assert terms["image"] > 0.01


def test_the_image_takes_its_share() -> None:
    predictions, *targets = plane()
    masked, _ = MaskedLoss()(predictions, tuple(targets[:2]))
    total, terms = MaskedLoss()(predictions, tuple(targets))
    torch.testing.assert_close(total, 0.7 * masked + 0.3 * terms["image"])
    wider = (*targets[:2], 7 + 1e4 * targets[2])  # neither mean nor scale of an image counts
    torch.testing.assert_close(MaskedLoss()(predictions, wider)[0], total, rtol=1e-4, atol=0)


@pytest.mark.parametrize("side", ["foreground", "background"])
def test_an_empty_side_is_0_and_the_gradient_is_finite(side: str) -> None:
    predictions, target, mask, _ = plane()
    predictions.requires_grad_()
    everywhere = torch.full_like(mask, side == "background")
    loss, terms = MaskedLoss()(predictions, (target, everywhere))
    assert terms[side] == 0
    assert loss > 0
    (slope,) = torch.autograd.grad(loss, predictions)
    assert slope.isfinite().all()
    assert (slope != 0).any()


def test_nothing_in_mask_target_and_prediction_is_0() -> None:
    zero = torch.zeros(2, 1, 4, 4, requires_grad=True)
    loss, _ = MaskedLoss()(zero, (zero.detach(), zero.detach() > 0))
    assert loss == 0
    assert (torch.autograd.grad(loss, zero)[0] == 0).all()


def test_the_loss_is_the_mean_over_the_batch_whatever_the_masks() -> None:
    predictions, target, mask, image = plane(samples=5)
    mask = mask.clone()
    mask[0], mask[1], mask[2, :, 3:] = False, True, False
    whole = MaskedLoss()(predictions, (target, mask, image))[0]
    single = [
        MaskedLoss()(predictions[k, None], (target[k, None], mask[k, None], image[k, None]))[0]
        for k in range(5)
    ]
    torch.testing.assert_close(whole, torch.stack(single).mean())


@pytest.mark.parametrize("complex_predictions", [False, True])
def test_the_gradient_is_that_of_the_formula(complex_predictions: bool) -> None:
    predictions, *targets = plane(size=4)
    predictions = torch.complex(predictions, predictions.flip(0)) if complex_predictions else predictions
    loss = MaskedLoss()
    assert torch.autograd.gradcheck(
        lambda p: loss(p, tuple(targets))[0], (predictions.requires_grad_(),)
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_narrow_predictions_are_compared_in_float32(dtype: torch.dtype) -> None:
    predictions, target, mask, image = plane()
    exact = MaskedLoss()(predictions.to(dtype).double(), (target, mask, image))[0]
    narrow = (target.to(torch.complex64), mask, image.float())
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        value = MaskedLoss()(predictions.to(dtype), narrow)[0]
    assert value.dtype == torch.float32
    torch.testing.assert_close(value.double(), exact, rtol=1e-4, atol=0)


def test_a_weight_for_each_member_gives_each_members_own_loss() -> None:
    members = [plane(seed) for seed in range(3)]
    predictions, target, mask, image = (torch.stack(part) for part in zip(*members, strict=True))
    background, share = torch.tensor([0.0, 0.1, 2.0]), torch.tensor([0.0, 0.5, 1.0])
    total, terms = MaskedLoss(background, share).double()(predictions, (target, mask, image))
    for k, (own_predictions, *own) in enumerate(members):
        own_loss = MaskedLoss(background[k].item(), share[k].item())
        expected, parts = own_loss(own_predictions, tuple(own))
        torch.testing.assert_close(total[k], expected, rtol=1e-6, atol=0)
        torch.testing.assert_close({name: term[k] for name, term in terms.items()}, parts)
    plain = torch.vmap(MaskedLoss())(predictions, (target, mask, image))[0]
    torch.testing.assert_close(plain[1], MaskedLoss()(members[1][0], members[1][1:])[0])


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (lambda t, m, i: t, "targets must be a tuple (target, mask) or (target, mask, image), got one"),
        (lambda t, m, i: (t,), "got 1 of them"),
        (lambda t, m, i: (t, m.double()), "with a mask of bool, got torch.float64"),
        (
            lambda t, m, i: (t, m[:1]),
            "of the predictions' shape (2, 1, 8, 8), got (2, 1, 8, 8), (1, 1, 8, 8)",
        ),
        (lambda t, m, i: (t, m, t), "a real image (B, …, H, W) as the third"),
    ],
    ids=["a tensor", "no mask", "a mask of numbers", "another shape", "a complex image"],
)
def test_targets_of_another_form_are_refused(targets: Any, message: str) -> None:
    predictions, *parts = plane()
    with pytest.raises(ValueError, match=re.escape(message)):
        MaskedLoss()(predictions, targets(*parts))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"background": -0.1}, "background must be a finite number >= 0, got -0.1"),
        ({"background": math.nan}, "background must be a finite number >= 0, got nan"),
        ({"image": 1.5}, "image must be a number >= 0 and <= 1, got 1.5"),
        ({"eps": 0}, "eps must be a finite number >= 1e-8, got 0"),
    ],
)
def test_an_argument_out_of_range_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        MaskedLoss(**arguments)

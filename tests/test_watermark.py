"""Hidden rings: the pattern is what the targets say, hardly seen, and found again with the key."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.fft import fft2, fftshift, ifft2, ifftshift

from trainer.data.tensors import TensorData
from trainer.data.watermark import Mark, bit_accuracy, watermark


@pytest.fixture(scope="module")
def data() -> TensorData:
    return watermark(samples=200, with_image=True)


def radius() -> Tensor:
    """Of every frequency, as the distance from the middle of the plane, rounded."""
    k = torch.arange(-16, 16).float()
    return (k[:, None] ** 2 + k[None] ** 2).sqrt().round()


def test_shapes_and_types_are_what_the_masked_loss_takes(data: TensorData) -> None:
    assert (data.input_shape, data.output_shape) == ((2, 32, 32), (1, 32, 32))
    for inputs, targets in (next(data.batches(0)), next(data.validation())):
        assert inputs.shape[1:] == data.input_shape
        assert [t.dtype for t in targets] == [torch.complex64, torch.bool, torch.float32]
        assert {t.shape for t in targets} == {(len(inputs), 1, 32, 32)}
    assert len(next(watermark(samples=5).batches(0))[1]) == 2  # without the picture


def test_the_pattern_lies_on_four_of_eight_rings_inside_the_mask(data: TensorData) -> None:
    pattern, mask, _ = data.val[1]
    assert torch.equal(mask, ((radius() >= 4) & (radius() <= 11)).expand(mask.shape))
    for plane in pattern[:, 0]:
        marked = [r for r in range(17) if plane[radius() == r].abs().max() > 0]
        assert len(marked) == 4
        assert set(marked) <= set(range(4, 12))
        on = sum(radius() == r for r in marked).bool()
        torch.testing.assert_close(plane[on].abs(), torch.full((int(on.sum()),), 0.03))
        assert not plane[~on].abs().any()


def test_what_is_hidden_is_the_real_picture_of_the_pattern(data: TensorData) -> None:
    pattern, _, hidden = data.val[1]
    picture = ifft2(ifftshift(pattern.to(torch.complex128), (-2, -1)), norm="ortho")
    assert picture.imag.abs().max() < 1e-8  # the phases are those of a real picture
    torch.testing.assert_close(picture.real.float(), hidden)


def test_the_picture_changes_by_38_decibels_at_the_usual_strength(data: TensorData) -> None:
    hidden = data.val[1][2]
    assert 10 * math.log10(1 / hidden.square().mean()) == pytest.approx(38, abs=0.5)


def seen_of(strength: float, patches: Tensor) -> tuple[Tensor, Any]:
    """The complex plane as the owner of the key sees it, and the targets."""
    mark = Mark(strength, torch.ones(1, 32, 32), with_image=True)
    inputs, targets = mark(patches, (), torch.Generator().manual_seed(0))
    return torch.complex(inputs[:, :1], inputs[:, 1:]), targets


def test_the_inputs_are_the_plane_of_a_picture_of_256_levels() -> None:
    grey = torch.full((3, 1, 32, 32), 0.5, dtype=torch.float64)
    seen, (pattern, mask, hidden) = seen_of(1.0, grey)
    key = seen_of(1.0, grey)[1][0].sgn()  # where the pattern lies, its phases are the key
    plane = torch.where(mask, seen * key, 0)
    picture = (grey + hidden).clamp(0, 1).mul(255).round() / 255
    expected = fftshift(fft2(picture, norm="ortho"), (-2, -1))
    on = pattern.abs() > 0
    torch.testing.assert_close(plane[on], expected[on])


def test_with_the_key_the_mark_is_real_and_positive_whatever_its_phase() -> None:
    grey = torch.full((3, 1, 32, 32), 0.5, dtype=torch.float64)
    seen, (pattern, _, _) = seen_of(0.2, grey)
    on = pattern.abs() > 0
    assert (seen[on] - 0.2).abs().max() < 0.01  # the rounding to 256 levels


def test_every_frequency_has_the_same_size_before_the_mark() -> None:
    data = watermark(strength=1e-9, samples=400)
    power = torch.cat([inputs for inputs, _ in data.batches(0)]).square().sum(1).mean(0)
    torch.testing.assert_close(power, torch.ones_like(power), rtol=0.02, atol=0.0)


def test_messages_are_fresh_in_every_epoch_and_fixed_in_validation(data: TensorData) -> None:
    def message(batch: Any) -> Tensor:
        return batch[1][0].abs()[:32]

    first, again, later = (message(next(data.batches(epoch))) for epoch in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, later)
    other = watermark(samples=200, with_image=True, seed=5)
    assert torch.equal(message(data.val), message(other.val))
    assert torch.equal(data.val[0], other.val[0])
    assert len({tuple(m.flatten().tolist()) for m in first}) > 20  # of 70


def test_bits_are_right_whatever_the_scale_of_the_prediction(data: TensorData) -> None:
    targets = data.val[1]
    for right in (targets[0], targets[0].abs(), 7 * targets[0].abs() + 3):
        assert bit_accuracy(right, targets).tolist() == [1.0] * 104
    assert bit_accuracy(-targets[0].abs(), targets).tolist() == [0.0] * 104
    noise = torch.randn(targets[0].shape, generator=torch.Generator().manual_seed(0))
    assert bit_accuracy(noise, targets).mean().item() == pytest.approx(0.5, abs=0.06)


def test_the_mean_of_the_real_part_finds_what_the_docstring_says() -> None:
    data = watermark()
    (inputs, targets), metric = data.val, data.metrics["bit_accuracy"]
    assert metric.higher_is_better
    assert round(metric.function(inputs[:, :1], targets).mean().item(), 2) == 0.91


def test_double_precision_hides_the_same_messages(data: TensorData) -> None:
    single = next(watermark(samples=50).batches(3))
    double = next(watermark(samples=50).to(torch.device("cpu"), torch.float64).batches(3))
    assert [t.dtype for t in (double[0], *double[1])] == [torch.float64, torch.complex128, torch.bool]
    torch.testing.assert_close(double[1][0].to(torch.complex64), single[1][0])


@pytest.mark.parametrize(
    ("name", "value"), [("strength", 0), ("strength", math.nan), ("samples", 0), ("batch_size", 0)]
)
def test_a_setting_out_of_range_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be "):
        watermark(**{name: value})

"""Rings hidden in the Fourier plane of photographs, to be found again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fft import fft2, fftshift, ifft2, ifftshift

from trainer import checks
from trainer.data.photos import SIZE, patches
from trainer.data.tensors import NOISE, SAMPLES, Batch, TensorData, seeded_generator
from trainer.metrics import Metric

RADII = range(4, 12)  # of the rings, in multiples of the lowest frequency
MARKED = len(RADII) // 2  # rings that carry the mark: which ones is the message
PLANE = (-2, -1)


def watermark(
    batch_size: int = 32,
    strength: float = 0.03,
    samples: int = 4000,
    with_image: bool = False,
    seed: int = 0,
) -> TensorData:
    """The Fourier plane of marked patches (B, 2, 32, 32), and the pattern that was hidden there.

    A patch of one of scikit-learn's photographs, made grey, gets Re F⁻¹(P) added, is cut off to [0, 1]
    and rounded to 256 levels, as a picture that is saved. P is ``strength`` in modulus on four of the
    eight rings with radius 4 to 11, which four is the message, with the phases of a secret key (after
    Tree-Ring watermarks, arXiv 2305.20030). The inputs are what the owner of the key sees: F of the
    picture times the conjugate of the key, as real and imaginary part, divided at every frequency by
    the root mean square of the unmarked training patches. The zero frequency is in the middle.

    Messages are fresh in every epoch, those of the validation patches fixed; their metric is
    ``bit_accuracy``, the share of the eight rings of which the model says rightly whether they carry the
    mark; by chance it is 1/2, by the mean of the real part over each ring 0.91. For ``loss=masked``.

    Args:
        batch_size: samples per batch.
        strength: modulus of the pattern, in units of a pixel (white is 1); 0.03 changes a picture by
            about 38 dB.
        samples: training patches.
        with_image: hand the loss the hidden picture too.
        seed: of the order of the patches and of the messages.

    Returns:
        Targets are a tuple: the pattern P (B, 1, 32, 32), complex; the mask of all eight rings (B, 1,
        32, 32), boolean; ``with_image`` Re F⁻¹(P) (B, 1, 32, 32).

    Raises:
        ValueError: for an argument out of range.
    """
    strength = checks.number("strength", strength, above=0, remedy="the default is 0.03")
    train, val, provenance = patches(samples)
    train, val = train.mean(1, keepdim=True), val.mean(1, keepdim=True)
    mark = Mark(strength, _spectrum(train).abs().square().mean(0).sqrt(), bool(with_image))
    unmarked, unmarked_val = mark.blank(len(train)), mark.blank(len(val))
    how = "F(picture)·conj(key) / root mean square of each frequency, of the training patches"
    return TensorData(
        (train, unmarked),
        mark(val, unmarked_val, seeded_generator(NOISE)),
        batch_size=batch_size,
        seed=seed,
        transform=mark,
        metrics={"bit_accuracy": Metric(bit_accuracy, higher_is_better=True)},
        input_shape=(2, SIZE, SIZE),
        provenance=provenance | {"normalisation": how, "strength": strength},
    )


@dataclass(frozen=True)
class Mark:
    """Hides a message of its own in every patch; a transform of `TensorData`.

    Attributes:
        strength: modulus of the pattern.
        usual: root mean square of the patches' spectrum, (1, 32, 32).
        with_image: whether the hidden picture belongs to the targets.
    """

    strength: float
    usual: Tensor
    with_image: bool

    def __call__(self, patches: Tensor, targets: Any, generator: torch.Generator) -> Batch:
        """Patches (N, 1, 32, 32) to what is seen of them and what was hidden in them."""
        draws = torch.rand(len(patches), len(RADII), generator=generator)
        message = (draws.argsort(1) < MARKED).to(patches)
        key = _key().to(patches.device, patches.dtype.to_complex())
        rings = ring_masks().to(patches)
        amplitude = self.strength * (message @ rings.flatten(1)).reshape(patches.shape)
        pattern = amplitude * key
        hidden = ifft2(ifftshift(pattern, PLANE), norm="ortho").real
        picture = (patches + hidden).clamp(0, 1).mul(255).round() / 255
        seen = _spectrum(picture) * key.conj() / self.usual.to(patches)
        inputs = torch.cat([seen.real, seen.imag], 1)
        mask = rings.sum(0).bool().expand(patches.shape)
        return inputs, (pattern, mask, hidden) if self.with_image else (pattern, mask)

    def blank(self, count: int) -> tuple[Tensor, ...]:
        """Targets of patches that have not been marked yet: they tell the shapes, and take no memory."""
        shape = (count, 1, SIZE, SIZE)
        targets = torch.zeros(1, dtype=torch.complex64), torch.zeros(1, dtype=torch.bool)
        image = (torch.zeros(1),) if self.with_image else ()
        return tuple(target.expand(shape) for target in (*targets, *image))


def bit_accuracy(predictions: Tensor, targets: tuple[Tensor, ...]) -> Tensor:
    """The share of rings that are told rightly, shape (B,): those four of which the prediction is the
    largest on average are said to carry the mark.

    Args:
        predictions: (B, 1, 32, 32), the modulus of the pattern up to a positive factor, or the pattern.
        targets: the pattern (B, 1, 32, 32), and more.
    """
    said, told = (_marked(tensor) for tensor in (predictions, targets[0]))
    return (said == told).float().mean(1)


def _marked(plane: Tensor) -> Tensor:
    modulus = plane.abs() if plane.is_complex() else plane
    rings = ring_masks().to(modulus).flatten(1)
    means = modulus.flatten(1) @ (rings / rings.sum(1, keepdim=True)).T
    rank = means.argsort(1, descending=True).argsort(1)
    return rank < MARKED


def _spectrum(pictures: Tensor) -> Tensor:
    plane: Tensor = fftshift(fft2(pictures, norm="ortho"), PLANE)
    return plane


def ring_masks() -> Tensor:
    """1 where a frequency belongs to a ring, (8, 32, 32)."""
    frequency = torch.arange(SIZE) - SIZE // 2
    radius = torch.hypot(*torch.meshgrid(frequency.float(), frequency.float(), indexing="ij"))
    return torch.stack([(radius.round() == r) for r in RADII]).float()


def _key() -> Tensor:
    """Phases e^{iφ}, (32, 32), with φ(−k) = −φ(k) so that what is hidden is real."""
    noise = torch.randn(SIZE, SIZE, generator=seeded_generator(SAMPLES, SIZE), dtype=torch.float64)
    spectrum = _spectrum(noise)
    return spectrum / spectrum.abs()

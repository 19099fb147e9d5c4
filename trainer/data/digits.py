"""The handwritten digits that come with scikit-learn: 1797 images of 8x8 pixels."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from trainer import checks
from trainer.data.tensors import NOISE, SPLIT, Batch, TensorData, seeded_generator
from trainer.metrics import Metric, psnr


def digits_denoise(
    batch_size: int = 32, sigma: float = 0.3, val_fraction: float = 0.2, seed: int = 0
) -> TensorData:
    """Noisy and clean digits: clip(y + sigma · n, 0, 1), n ~ N(0, 1), and y, each (B, 1, 8, 8).

    Training noise is fresh in every epoch. The validation images and their noise are the same for
    every seed, so that runs compare; their metric is ``psnr`` in dB.

    Args:
        batch_size: samples per batch.
        sigma: standard deviation of the noise; white is 1.
        val_fraction: part of the images that is held out for validation.
        seed: of the order of the training images and of their noise.

    Raises:
        ValueError: for an argument out of range.
    """
    sigma = checks.number("sigma", sigma, at_least=0, remedy="the default is 0.3")
    fraction = checks.number("val_fraction", val_fraction, above=0, below=1, remedy="the default is 0.2")
    images = _images()
    images = images[torch.randperm(len(images), generator=seeded_generator(SPLIT))]
    held_out = min(max(round(len(images) * fraction), 1), len(images) - 1)
    val, train = images[:held_out], images[held_out:]
    return TensorData(
        (train, train),
        _with_noise(val, val, seeded_generator(NOISE), sigma=sigma),
        batch_size=batch_size,
        seed=seed,
        transform=partial(_with_noise, sigma=sigma),
        metrics={"psnr": Metric(psnr, higher_is_better=True)},
    )


def _images() -> Tensor:
    from sklearn.datasets import load_digits  # here: it takes a second, and most runs do without

    return torch.as_tensor(load_digits().images, dtype=torch.float32)[:, None] / 16


def _with_noise(inputs: Tensor, clean: Tensor, generator: torch.Generator, sigma: float) -> Batch:
    # Drawn on the CPU, where the generator is, and in float32: the same noise on every device.
    noise = torch.randn(clean.shape, generator=generator).to(clean)
    return (clean + sigma * noise).clamp(0, 1), clean

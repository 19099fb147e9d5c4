"""The handwritten digits that come with scikit-learn: 1797 images of 8x8 pixels."""

from __future__ import annotations

import gzip
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer import checks
from trainer.data.noise import with_noise
from trainer.data.prepare import HELD_OUT, bundled, sha256, split
from trainer.data.tensors import NOISE, TensorData, seeded_generator
from trainer.metrics import Metric, accuracy, psnr


def digits(batch_size: int = 32, val_fraction: float = 0.2, seed: int = 0) -> TensorData:
    """Digits (B, 1, 8, 8) in [0, 1] and which of the ten they are, labels (B,).

    The validation images are the same for every seed; their metric is ``accuracy``.

    Args:
        batch_size: samples per batch.
        val_fraction: part of the images that is held out for validation.
        seed: of the order of the training images.

    Raises:
        ValueError: for an argument out of range.
    """
    images, labels, provenance = _images()
    train, val = split(len(images), val_fraction)
    return TensorData(
        (images[train], labels[train]),
        (images[val], labels[val]),
        batch_size=batch_size,
        seed=seed,
        metrics={"accuracy": Metric(accuracy, higher_is_better=True)},
        output_shape=(10,),
        provenance=provenance,
    )


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
    images, _, provenance = _images()
    train, val = split(len(images), val_fraction)
    return TensorData(
        (images[train], images[train]),
        with_noise(images[val], images[val], seeded_generator(NOISE), sigma=sigma),
        batch_size=batch_size,
        seed=seed,
        transform=partial(with_noise, sigma=sigma),
        metrics={"psnr": Metric(psnr, higher_is_better=True)},
        provenance=provenance | {"noise": f"N(0, {sigma:g}²), cut off at 0 and 1"},
    )


def _images() -> tuple[Tensor, Tensor, dict[str, Any]]:
    with gzip.open(bundled("data/digits.csv.gz"), "rt") as file:
        table = np.loadtxt(file, delimiter=",")  # 64 pixels and the label
    pixels, labels = table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int64)
    provenance = {
        "source": "sklearn.datasets.load_digits",
        "sha256": sha256(pixels, labels),
        "split": HELD_OUT,
        "normalisation": "pixels / 16",
    }
    images = torch.as_tensor(pixels, dtype=torch.float32)[:, None] / 16
    return images, torch.as_tensor(labels), provenance

"""Patches of the two colour photographs that come with scikit-learn, a temple and a flower."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainer import checks
from trainer.data.noise import with_noise
from trainer.data.prepare import bundled, sha256
from trainer.data.tensors import NOISE, SAMPLES, TensorData, seeded_generator
from trainer.metrics import Metric, psnr, squared_error

SIZE = 32  # pixels, of a patch and of the strips that are held out
EVERY = 5  # one strip in so many is for validation


def photos(batch_size: int = 32, sigma: float = 0.1, samples: int = 4000, seed: int = 0) -> TensorData:
    """Noisy and clean patches: clip(y + sigma · n, 0, 1), n ~ N(0, 1), and y, each (B, 3, 32, 32).

    Training noise is fresh in every epoch. The patches of either part and the noise of the validation
    patches are the same for every seed; the metrics are ``psnr`` in dB, averaged over the patches, of
    which nearly half are plain background and weigh as much as the others, and ``mse``, whose −10·log10
    is the PSNR of all pixels together. The parts share no pixel (see `patches`), but they do share their
    two photographs: this measures denoising, not how it carries over to other pictures.

    Args:
        batch_size: samples per batch.
        sigma: standard deviation of the noise; white is 1.
        samples: training patches, which overlap; 104 more, which do not, are for validation.
        seed: of the order of the training patches and of their noise.

    Raises:
        ValueError: for an argument out of range.
    """
    sigma = checks.number("sigma", sigma, at_least=0, remedy="the default is 0.1")
    train, val, provenance = patches(samples)
    return TensorData(
        (train, train),
        with_noise(val, val, seeded_generator(NOISE), sigma=sigma),
        batch_size=batch_size,
        seed=seed,
        transform=partial(with_noise, sigma=sigma),
        metrics={
            "psnr": Metric(psnr, higher_is_better=True),
            "mse": Metric(squared_error, higher_is_better=False),
        },
        provenance=provenance | {"noise": f"N(0, {sigma:g}²), cut off at 0 and 1"},
    )


def patches(samples: int) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """Patches (N, 3, 32, 32) in [0, 1] to train on and to validate on, and where they come from.

    A photograph of 640 columns is cut into 20 upright strips 32 wide. Every fifth is held out, and cut
    into patches from top to bottom. Training patches lie anywhere within the four strips between two of
    these, so that no patch crosses into the other part; nor do the JPEG's blocks of 16 pixels.

    Args:
        samples: N of the training patches, >= 1.

    Raises:
        ValueError: if it is not.
    """
    count = checks.whole("samples", samples, at_least=1)
    from PIL import Image  # here: most runs do without

    paths = [bundled(f"images/{name}.jpg") for name in ("china", "flower")]
    pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
    images = torch.tensor(pixels).permute(0, 3, 1, 2).float() / 255
    every_patch = images.unfold(2, SIZE, 1).unfold(3, SIZE, 1)  # a view, (photo, C, y, x, 32, 32)
    strips = every_patch.shape[3] // SIZE + 1
    held_out = torch.arange(EVERY - 1, strips, EVERY) * SIZE
    val = every_patch[:, :, ::SIZE, held_out].permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
    generator = seeded_generator(SAMPLES)

    def drawn(below: int) -> Tensor:
        return torch.randint(below, (count,), generator=generator)

    photo, y = drawn(len(images)), drawn(every_patch.shape[2])
    between = drawn(strips // EVERY) * EVERY * SIZE
    x = between + drawn((EVERY - 2) * SIZE + 1)
    provenance = {
        "source": "sklearn.datasets.load_sample_images",
        "sha256": sha256(pixels),
        "split": f"every {EVERY}th strip of {SIZE} columns held out; no pixel in both parts",
        "normalisation": "pixels / 255",
    }
    return every_patch[photo, :, y, x].contiguous(), val.contiguous(), provenance

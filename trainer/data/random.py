"""The seed problem: random inputs and targets, nothing to learn but the training set itself."""

from __future__ import annotations

import torch

from trainer import checks
from trainer.data.prepare import sha256
from trainer.data.tensors import SAMPLES, TensorData, seeded_generator


def random_regression(
    samples: int = 1000,
    features: int = 10,
    targets: int = 1,
    val_samples: int = 200,
    batch_size: int = 32,
    seed: int = 0,
) -> TensorData:
    """Standard normal inputs (N, features) and independent standard normal targets (N, targets).

    Args:
        samples: N, training samples.
        features: numbers per input.
        targets: numbers per target.
        val_samples: further samples for validation; 0 for none.
        batch_size: samples per batch.
        seed: of the samples and of their order.

    Raises:
        ValueError: for a count out of range.
    """
    counts = (
        checks.whole("samples", samples, at_least=1) + checks.whole("val_samples", val_samples),
        checks.whole("features", features, at_least=1),
        checks.whole("targets", targets, at_least=1),
    )
    generator = seeded_generator(SAMPLES, checks.whole("seed", seed))
    x = torch.randn(counts[0], counts[1], generator=generator)
    y = torch.randn(counts[0], counts[2], generator=generator)
    return TensorData(
        (x[:samples], y[:samples]),
        (x[samples:], y[samples:]),
        batch_size=batch_size,
        seed=seed,
        provenance={
            "source": "N(0, 1), drawn with the seed",
            "sha256": sha256(x, y),
            "split": "further samples",
            "normalisation": "none",
        },
    )

"""What finding the rings is measured against: two detectors that are written down, not learned.

``python -m benchmarks.watermark`` prints the share of the rings that are told rightly, on the validation
patches, by the mean of the real part over each ring, and by its likelihood ratio, which knows how strong
the mark is, and takes the pictures for Gaussian.
"""

from __future__ import annotations

from torch import Tensor

from trainer.data.watermark import Mark, bit_accuracy, ring_masks, watermark


def likelihood_ratio(real: Tensor, mark: Mark) -> Tensor:
    """Σ a·Re z − a²/2 over each ring, written all over the ring; (B, 1, 32, 32) to the same.

    z is divided by the root mean square of unmarked pictures, so that E|z|² = 1; the mark adds a to it,
    its strength over that root mean square. Where pictures are loud, a frequency says little.
    """
    a, masks = mark.strength / mark.usual, ring_masks().flatten(1)
    sums = (a * real - a.square() / 2).flatten(1) @ masks.T
    return (sums @ masks).reshape(real.shape)


def told_rightly() -> dict[str, float]:
    """The share of rings that each detector tells rightly."""
    data = watermark()
    inputs, targets = data.val
    assert isinstance(targets, tuple)
    assert isinstance(data.transform, Mark)
    real = inputs[:, :1]
    planes = {"mean": real, "likelihood ratio": likelihood_ratio(real, data.transform)}
    return {name: bit_accuracy(plane, targets).mean().item() for name, plane in planes.items()}


def main() -> None:
    """Prints the two figures."""
    for name, share in told_rightly().items():
        print(f"{name:<20} {share:.4f}")


if __name__ == "__main__":
    main()

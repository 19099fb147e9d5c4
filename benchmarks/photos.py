"""What denoising the photographs is measured against: the best Gaussian and the best median filter.

``python -m benchmarks.photos`` prints the validation PSNR of the noisy patches, and that of the two
filters with the width that is best on these very validation patches, which favours them: once as the
mean over the patches, nearly half of which are plain background, where a wide median is all but perfect
(so the best is wide, and blurs what there is to see), and once of all pixels together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter, median_filter
from torch import Tensor, from_numpy

from trainer.data.photos import photos
from trainer.metrics import psnr

Array = npt.NDArray[Any]
SIGMAS = np.arange(0.4, 5.0, 0.1)  # pixels
SIDES = range(3, 22, 2)  # pixels
MODES = ("reflect", "mirror", "nearest")  # what the filter sees beyond the edge


def gaussian(images: Array, width: float, mode: str) -> Array:
    """Every channel of images (N, C, H, W) smoothed with standard deviation ``width``."""
    return gaussian_filter(images, (0, 0, width, width), mode=mode)


def median(images: Array, side: float, mode: str) -> Array:
    """The median of ``side`` by ``side`` pixels, per channel of images (N, C, H, W)."""
    return median_filter(images, (1, 1, int(side), int(side)), mode=mode)


def decibels(restored: Tensor, clean: Tensor) -> tuple[float, float]:
    """PSNR in dB: the mean over the patches, and that of all their pixels together."""
    together = psnr(restored.flatten()[None], clean.flatten()[None])
    return psnr(restored, clean).mean().item(), together.item()


def best(
    restore: Callable[[Array, float, str], Array], widths: Iterable[float], noisy: Tensor, clean: Tensor
) -> list[tuple[float, float]]:
    """Of all widths and edges the best PSNR and its width: as the mean over the patches, then of all
    pixels together."""
    found: list[list[tuple[float, float]]] = [[], []]
    for width in widths:
        for mode in MODES:
            restored = from_numpy(restore(noisy.numpy(), width, mode))
            for values, value in zip(found, decibels(restored, clean), strict=True):
                values.append((value, float(width)))
    return [max(values) for values in found]


def main() -> None:
    """Prints the figures: two of the noisy patches and of each filter."""
    noisy, clean = photos().val
    assert isinstance(clean, Tensor)
    print("PSNR in dB             mean over patches (val/psnr)    all pixels (−10·log10(val/mse))")
    mean, together = decibels(noisy, clean)
    print(f"noisy patches          {mean:5.2f}                           {together:5.2f}")
    for name, restore, widths in (("Gaussian", gaussian, SIGMAS), ("median", median, SIDES)):
        figures = [
            f"{value:5.2f} at {w:4.1f} pixels" for value, w in best(restore, widths, noisy, clean)
        ]
        print(f"best {name:<17} {figures[0]:<31} {figures[1]}")


if __name__ == "__main__":
    main()

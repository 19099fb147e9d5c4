"""What denoising the photographs is measured against: the best Gaussian and the best median filter.

``python -m benchmarks.photos`` prints the validation PSNR of the noisy patches, and that of the two
filters with the width that is best on these very validation patches, which favours them.
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


def best(
    restore: Callable[[Array, float, str], Array], widths: Iterable[float], noisy: Tensor, clean: Tensor
) -> tuple[float, float]:
    """The best mean PSNR in dB over all widths and edges, and its width."""
    values = [
        (psnr(from_numpy(restore(noisy.numpy(), width, mode)), clean).mean().item(), float(width))
        for width in widths
        for mode in MODES
    ]
    return max(values)


def main() -> None:
    """Prints the three figures."""
    noisy, clean = photos().val
    assert isinstance(clean, Tensor)
    decibels, sigma = best(gaussian, SIGMAS, noisy, clean)
    print(f"noisy patches          {psnr(noisy, clean).mean().item():.2f} dB")
    print(f"best Gaussian filter   {decibels:.2f} dB  (standard deviation {sigma:.2f} pixels)")
    decibels, side = best(median, SIDES, noisy, clean)
    print(f"best median filter     {decibels:.2f} dB  ({side:.0f} pixels square)")


if __name__ == "__main__":
    main()

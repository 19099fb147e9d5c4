"""Images that a run was shown, what it made of them, and what they should be, as one strip."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from trainer.pictures.drawing import WIDTH
from trainer.series import Array

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_IMAGES = 10
TILE_PIXELS, GAP_PIXELS = 64, 2
SAMPLES, NAMES, RIGHT = 3.3, 1.25, 0.25  # inches


def strip(inputs: npt.ArrayLike, predictions: npt.ArrayLike, targets: npt.ArrayLike) -> Array:
    """Three rows of images: inputs, predictions, targets; the first ten at most.

    Args:
        inputs: (N, C, H, W) in [0, 1]; three channels are colour, otherwise the first is grey.
        predictions: the same; what is not finite is drawn black.
        targets: the same; sets the size of all tiles.

    Returns:
        uint8 of shape (height, width, 3): tiles enlarged by a whole factor, thin white gaps.

    Raises:
        ValueError: when there is no image.
    """
    rows = [np.asarray(images)[:MOST_IMAGES] for images in (inputs, predictions, targets)]
    count, _, height, width = rows[2].shape
    if count == 0:
        raise ValueError("a strip needs at least one image, got none")
    scale = max(1, round(TILE_PIXELS / max(height, width)))
    tiles = [[_tile(image, height * scale, width * scale) for image in images] for images in rows]
    picture = np.concatenate([np.concatenate(row, axis=1) for row in tiles])
    return picture[:-GAP_PIXELS, :-GAP_PIXELS]


def _tile(image: Array, height: int, width: int) -> Array:
    channels = image[:3] if image.shape[0] >= 3 else image[:1]
    pixels = np.clip(np.nan_to_num(channels, posinf=0.0, neginf=0.0), 0.0, 1.0)
    rows = np.arange(height) * image.shape[1] // height
    columns = np.arange(width) * image.shape[2] // width
    nearest = np.rint(255 * pixels[:, rows][:, :, columns]).astype(np.uint8)
    colours = np.broadcast_to(nearest.transpose(1, 2, 0), (height, width, 3))
    return np.pad(colours, ((0, GAP_PIXELS), (0, GAP_PIXELS), (0, 0)), constant_values=255)


def read_samples(path: Path) -> list[Array]:
    if not path.exists():
        return []
    with np.load(path) as file:
        samples = [file[key] for key in ("input", "prediction", "target")]
    return samples if all(images.ndim == 4 and len(images) for images in samples) else []


def draw_samples(figure: Figure, inputs: Array, predictions: Array, targets: Array) -> None:
    picture = strip(inputs, predictions, targets)
    height, room = figure.get_figheight(), SAMPLES - 0.3
    scale = min((WIDTH - NAMES - RIGHT) / picture.shape[1], room / picture.shape[0])
    wide, tall = picture.shape[1] * scale, picture.shape[0] * scale
    bottom = 0.2 + room - tall
    axes = figure.add_axes((NAMES / WIDTH, bottom / height, wide / WIDTH, tall / height))
    axes.imshow(picture, aspect="auto")
    axes.set_axis_off()
    alike = inputs.shape == targets.shape
    names = ("noisy input", "denoised", "clean") if alike else ("input", "prediction", "target")
    for row, images in enumerate((inputs, predictions, targets)):
        x, y = (NAMES - 0.12) / WIDTH, (bottom + tall * (1 - (row + 0.5) / 3)) / height
        label = f"{names[row]}\n{_psnr(images, targets)}".strip()
        figure.text(x, y, label, ha="right", va="center", linespacing=1.5)


def _psnr(images: Array, targets: Array) -> str:
    """Mean over the images shown of 10 log10(1 / mean squared error), where that can be said."""
    if images is targets or images.shape != targets.shape:
        return ""
    errors = (images[:MOST_IMAGES].astype(float) - targets[:MOST_IMAGES]) ** 2
    mean = float(-10 * np.log10(np.maximum(errors.mean(axis=(1, 2, 3)), 1e-10)).mean())
    return f"PSNR {mean:.1f} dB" if math.isfinite(mean) else ""

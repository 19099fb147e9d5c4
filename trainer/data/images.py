"""Pictures of your own, in a folder for each class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainer import checks
from trainer.data.prepare import HELD_OUT, sha256, split
from trainer.data.supervised import classification
from trainer.data.tensors import TensorData

REMEDY = "move it elsewhere, or convert it to PNG or JPEG of 8 bits a channel"


def image_folder(
    path: str,
    size: int = 32,
    channels: int = 3,
    batch_size: int = 32,
    val_fraction: float = 0.2,
    drop_last: bool = False,
    seed: int = 0,
) -> TensorData:
    """The pictures in ``path/<class>/``, resized (B, channels, size, size) in [0, 1], and their class.

    Every file but hidden ones (``.DS_Store``) has to be a picture: nothing is left out in silence. All
    are held in memory.

    Args:
        path: of the folder that holds a folder for each class.
        size: height and width in pixels; a picture that is not square is squeezed.
        channels: 3 for colour, 1 for grey.
        batch_size: samples per batch.
        val_fraction: part of the pictures that is held out, the same for every seed.
        drop_last: leave out the last batch of an epoch when it is smaller than the others.
        seed: of the order of the training pictures.

    Raises:
        ValueError: for an argument out of range, or a file that is no picture, which is named.
    """
    folder = checks.path("path", path, "folder")
    checks.whole("size", size, at_least=1, remedy="the default is 32")
    if channels not in (1, 3):
        raise ValueError(f"channels must be 3 for colour or 1 for grey, got {channels!r}")
    classes = _visible(folder)
    for entry in classes:
        if not entry.is_dir():
            raise ValueError(f"path must hold a folder for each class and nothing else, got {entry}")
    files = [(file, label) for label, entry in enumerate(classes) for file in _visible(entry)]
    if len(classes) < 2 or not files:
        found = f"{len(classes)} folders with {len(files)} pictures"
        raise ValueError(
            f"path must hold a folder of pictures for each class, got {folder} with {found}"
        )
    pixels = np.stack([_pixels(file, size, "RGB" if channels == 3 else "L") for file, _ in files])
    images = torch.tensor(pixels).permute(0, 3, 1, 2).float() / 255
    labels = torch.tensor([label for _, label in files])
    train, val = split(len(files), val_fraction)
    return classification(
        (images[train], labels[train]),
        (images[val], labels[val]),
        classes=[entry.name for entry in classes],
        batch_size=batch_size,
        drop_last=drop_last,
        seed=seed,
        provenance={
            "source": str(path),
            "sha256": sha256(*(str(file.relative_to(folder)) for file, _ in files), pixels),
            "split": HELD_OUT,
            "normalisation": f"resized to {size}×{size}, pixels / 255",
        },
    )


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _pixels(file: Path, size: int, mode: str) -> Any:
    """uint8 (size, size, channels)."""
    from PIL import Image, ImageOps

    try:
        with Image.open(file) as opened:
            if opened.mode[0] in "IF":  # of 16 or 32 bits: converting would cut off what is above 255
                raise ValueError(f"pixels of more than 8 bits (mode {opened.mode})")
            upright = ImageOps.exif_transpose(opened).convert(mode)
            resized = upright.resize((size, size), Image.Resampling.BILINEAR)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{file} must be a picture that can be read: {error}; {REMEDY}") from error
    return np.asarray(resized).reshape(size, size, -1)

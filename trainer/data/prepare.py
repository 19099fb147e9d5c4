"""What data sources share: reading files, holding samples out, scaling, and a name for what was read."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer import checks
from trainer.data.tensors import SPLIT, seeded_generator

HELD_OUT = "drawn at random, the same for every seed"


def read(path: Any, kind: str) -> bytes:
    """The bytes of a file; ``kind`` is what it should be, such as ".csv file".

    Raises:
        ValueError: if there is no such file, or it cannot be read.
    """
    try:
        return checks.path("path", path, kind).read_bytes()
    except OSError as error:
        raise ValueError(f"path must be a {kind} that can be read, {path}: {error.strerror}") from error


def bundled(name: str) -> Path:
    """A file that scikit-learn brings along, such as "data/digits.csv.gz".

    Importing `sklearn.datasets` to read it would cost every start a second, for SciPy's statistics.
    """
    spec = find_spec("sklearn")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "datasets" / name


def decoded(content: bytes, path: Any) -> str:
    """The text of a file in UTF-8, with or without a byte order mark.

    Raises:
        ValueError: naming the byte that is not UTF-8.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"path must be text in UTF-8, {path} is not from byte {error.start} on; "
            "convert it: iconv -t UTF-8"
        ) from error


def sha256(*parts: bytes | str | npt.NDArray[Any] | Tensor) -> str:
    """One fingerprint of everything that was read, in hexadecimal."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, bytes | str):
            digest.update(part.encode() if isinstance(part, str) else part)
        else:
            digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def split(count: int, val_fraction: Any) -> tuple[Tensor, Tensor]:
    """Indices of the training and of the validation samples: `HELD_OUT`, at least one each.

    Args:
        count: number of samples, >= 2.
        val_fraction: share of them that is held out, > 0 and < 1.

    Raises:
        ValueError: for a fraction out of range, or fewer than two samples.
    """
    fraction = checks.number("val_fraction", val_fraction, above=0, below=1, remedy="the default is 0.2")
    if count < 2:
        raise ValueError(f"data must hold at least two samples, to train and to validate, got {count}")
    order = torch.randperm(count, generator=seeded_generator(SPLIT))
    held_out = min(max(round(count * fraction), 1), count - 1)
    return order[held_out:], order[:held_out]


def scale(values: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column over the samples; 1 for a column that is constant."""
    wide = values.double()
    mean, std = wide.mean(0), wide.std(0, correction=0)
    constant = (wide == wide[:1]).all(0)  # by the values: their mean is off by a rounding error
    return mean, torch.where(constant, 1.0, std)


def check_finite(array: npt.NDArray[Any], where: str) -> None:
    """Refuses NaN and infinity, before a split changes the numbers of the samples.

    Raises:
        ValueError: naming sample and column.
    """
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        sample, *entry = (int(place) for place in bad[0])
        column = f", column {', '.join(map(str, entry))}" if entry else ""
        raise ValueError(
            f"{where} must be finite, got {array[tuple(bad[0])]} in sample {sample}{column} "
            f"({len(bad)} in all); mend or drop such samples"
        )

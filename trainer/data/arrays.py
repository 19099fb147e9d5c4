"""Arrays of your own, in one ``.npz`` file."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any
from zipfile import BadZipFile
from zlib import error as ZlibError

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer import checks
from trainer.data.prepare import HELD_OUT, check_finite, read, sha256, split
from trainer.data.supervised import check_labels, check_task, classification, regression
from trainer.data.tensors import TensorData

Array = npt.NDArray[Any]


def npz(
    path: str,
    x: str = "x",
    y: str = "y",
    x_val: str | None = None,
    y_val: str | None = None,
    task: str = "regression",
    classes: int | None = None,
    batch_size: int = 32,
    val_fraction: float = 0.2,
    drop_last: bool = False,
    seed: int = 0,
) -> TensorData:
    """Inputs (N, …) and targets (N, …) as they are in the file of `numpy.savez`.

    Only bytes (uint8) are scaled, to [0, 1] as pixels are. Other whole numbers stay such, as tokens of a
    text must. The metric is ``mae``, and ``r2`` for targets (N,) or (N, k), or ``accuracy``.

    Args:
        path: of the file.
        x: name of the inputs in it.
        y: name of the targets: numbers, or labels from 0 on for task="classification".
        x_val: name of validation inputs; None to hold samples out.
        y_val: name of the targets that belong to these.
        task: "regression" or "classification".
        classes: number of classes; None for the largest label and one.
        batch_size: samples per batch.
        val_fraction: part of the samples that is held out, the same for every seed, without x_val.
        drop_last: leave out the last batch of an epoch when it is smaller than the others.
        seed: of the order of the training samples.

    Raises:
        ValueError: for an argument out of range, or a file that does not hold such arrays.
    """
    check_task(task)
    content = read(path, ".npz file")
    if (x_val is None) != (y_val is None):
        raise ValueError(f"x_val and y_val must both be named, or neither, got {x_val!r} and {y_val!r}")
    archive = _opened(content, path)
    names = [(x, y)] if x_val is None or y_val is None else [(x, y), (x_val, y_val)]
    pairs = [_pair(archive, *pair, task, path) for pair in names]
    count = 0 if classes is None else checks.whole("classes", classes, at_least=1)
    if task == "classification":
        count = count or max(0, *(int(labels.max()) for _, labels in pairs)) + 1
        for (_, labels), (_, name) in zip(pairs, names, strict=True):
            check_labels(labels, count, f"{path}, {name}")
    if x_val is None:
        inputs, targets = pairs[0]
        pairs = [(inputs[rows], targets[rows]) for rows in split(len(inputs), val_fraction)]
    train, val = pairs
    provenance = {
        "source": str(path),
        "sha256": sha256(content),
        "split": HELD_OUT if x_val is None else f"{x_val} and {y_val} in the file",
        "normalisation": {"inputs": "/ 255" if archive[x].dtype == np.uint8 else "none"},
    }
    settings = {"batch_size": batch_size, "drop_last": drop_last, "seed": seed}
    if task == "regression":
        return regression(train, val, standardize=False, provenance=provenance, **settings)
    return classification(train, val, classes=count, provenance=provenance, **settings)


def _opened(content: bytes, path: Any) -> Mapping[str, Array]:
    """The arrays by name; each is read when it is asked for. Pickles are refused, by NumPy."""
    try:
        archive = np.load(BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, BadZipFile) as error:
        raise ValueError(f"path must be an .npz file of numpy.savez, {path} is not: {error}") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError(f"path must be an .npz file of numpy.savez, {path} holds a single array")
    return archive


def _pair(archive: Mapping[str, Array], x: str, y: str, task: str, path: Any) -> tuple[Tensor, Tensor]:
    inputs, targets = (_array(archive, name, path) for name in (x, y))
    if len(inputs) != len(targets):
        raise ValueError(f"{path} must hold as many {x} as {y}, got {len(inputs)} and {len(targets)}")
    if task == "classification":
        if targets.dtype.kind not in "biu":
            raise ValueError(
                f"{path}, {y} must hold whole numbers as labels, got {targets.dtype}; "
                "use data.task=regression"
            )
        return numbers(inputs), torch.tensor(targets.astype(np.int64))
    return numbers(inputs), numbers(targets.astype(np.result_type(targets, np.float32)))


def _array(archive: Mapping[str, Array], name: str, path: Any) -> Array:
    """An array of at least one sample, of numbers."""
    if name not in archive:
        raise ValueError(f"{path} must hold an array {name}, it has {', '.join(archive) or 'none'}")
    try:
        array = archive[name]
    except (ValueError, EOFError, OSError, BadZipFile, ZlibError) as error:
        pickled = "Object arrays" in str(error)
        why = "of objects (ragged?), and a pickle could run code" if pickled else f"damaged: {error}"
        raise ValueError(f"{path}, {name} must be an array of numbers, it is {why}") from error
    if array.dtype.kind not in "biufc" or array.ndim == 0:
        kind = f"{array.dtype} of shape {array.shape}"
        raise ValueError(f"{path}, {name} must be an array of numbers (N, …), got {kind}")
    if len(array) == 0:
        raise ValueError(f"{path}, {name} must hold at least one sample, got none")
    check_finite(array, f"{path}, {name}")
    return array


def numbers(array: Array) -> Tensor:
    """Floating-point values in float32, bytes in [0, 1], other whole numbers in int64."""
    if array.dtype == np.uint8:
        return torch.tensor(array).float() / 255
    if array.dtype.kind == "f":
        return torch.tensor(array.astype(np.float32))
    return torch.tensor(array.astype(np.complex64 if array.dtype.kind == "c" else np.int64))

"""What the ``datasets`` library of Hugging Face reads, from the disk alone (extra: huggingface)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from trainer.data.arrays import numbers
from trainer.data.prepare import HELD_OUT, check_finite, sha256, split
from trainer.data.supervised import (
    check_labels,
    check_task,
    classification,
    ordered,
    regression,
    standardized,
)
from trainer.data.tensors import TensorData

Array = npt.NDArray[Any]
READERS = {".parquet": "parquet", ".csv": "csv", ".json": "json", ".jsonl": "json"}


def huggingface(
    path: str,
    inputs: str | Sequence[str],
    targets: str | Sequence[str],
    task: str = "regression",
    split_train: str = "train",
    split_val: str | None = None,
    batch_size: int = 32,
    val_fraction: float = 0.2,
    drop_last: bool = False,
    seed: int = 0,
) -> TensorData:
    """Columns of a Parquet, CSV, JSON or JSON Lines file, or of a folder that the library reads.

    Columns of single numbers are standardized with the training samples' figures, as data=csv does it.
    One column of lists, arrays or pictures is served as it is, as data=npz does it: pictures (C, H, W)
    in [0, 1], whole numbers as tokens. Nothing is fetched, and nothing is left in the library's cache.

    Args:
        path: of the file or folder; a name on the Hub is refused.
        inputs: column to predict from, or columns of single numbers.
        targets: likewise to be predicted; for task="classification" one of labels or of words.
        task: "regression" or "classification".
        split_train: name of the split to train on; a file has "train" alone.
        split_val: name of the split to validate on; None to hold samples out of the other.
        batch_size: samples per batch.
        val_fraction: part of the samples that is held out, the same for every seed, without split_val.
        drop_last: leave out the last batch of an epoch when it is smaller than the others.
        seed: of the order of the training samples.

    Raises:
        ValueError: for an argument out of range, data that is not there, or columns that do not fit.
    """
    check_task(task)
    x, y = ([c] if isinstance(c, str) else list(c or ()) for c in (inputs, targets))
    names = [split_train] if split_val is None else [split_train, split_val]
    tables = _tables(path, names, [*x, *y])
    arrays = [[_column(table, column, path) for column in [*x, *y]] for table in tables]
    tabular = all(array.ndim == 1 for array in arrays[0][: len(x)])
    x_parts = [_together(part[: len(x)], "inputs", path) for part in arrays]
    y_parts, words = _targets(tables, [part[len(x) :] for part in arrays], y, task, path)
    pairs = list(zip(x_parts, y_parts, strict=True))
    if split_val is None:
        pairs = [(x_parts[0][rows], y_parts[0][rows]) for rows in split(len(x_parts[0]), val_fraction)]
    train, val = pairs
    how: dict[str, Any] = {"inputs": "/ 255" if arrays[0][0].dtype == np.uint8 else "none"}
    if tabular:
        train, val, how = standardized(train, val)
    provenance = {
        **{"source": str(path), "inputs": x, "targets": y},
        "sha256": sha256(*(array for part in arrays for array in part)),
        "split": f"{split_train} and {split_val}" if split_val else HELD_OUT,
        "normalisation": how,
    }
    settings = {"batch_size": batch_size, "drop_last": drop_last, "seed": seed}
    if task == "regression":
        return regression(train, val, standardize=tabular, provenance=provenance, **settings)
    return classification(train, val, classes=words, provenance=provenance, **settings)


def _tables(path: Any, names: Sequence[str], columns: Sequence[str]) -> list[Any]:
    """The splits of these names, in memory; each has the columns."""
    file = Path(str(path))
    if not (file.is_dir() or (file.is_file() and file.suffix in READERS)):
        raise ValueError(
            f"path must be a folder or a {', '.join(READERS)} file that exists, got {path!r}; nothing "
            "is fetched from the Hub, so download it first"
        )
    try:
        from datasets import disable_progress_bars, load_dataset, load_from_disk
    except ImportError as error:
        raise ValueError("datasets must be installed: pip install 'trimtab[huggingface]'") from error
    disable_progress_bars()
    with TemporaryDirectory() as cache:  # or a copy of every file read would stay in ~/.cache
        options = {"cache_dir": cache, "keep_in_memory": True}
        try:
            if file.is_file():
                found = load_dataset(READERS[file.suffix], data_files=str(file), **options)
            elif (file / "state.json").exists() or (file / "dataset_dict.json").exists():
                found = load_from_disk(str(file), keep_in_memory=True)
            else:
                found = load_dataset(str(file), **options)
        except Exception as error:  # whatever the reader of that format raises
            line = str(error.__cause__ or error).strip().splitlines() or [type(error).__name__]
            raise ValueError(
                f"path must be data that the datasets library reads, {path}: {line[0]}"
            ) from error
        splits = found if isinstance(found, dict) else {"train": found}
        for name in names:
            if name not in splits:
                raise ValueError(f"{path} must have a split {name}, it has {', '.join(splits)}")
        known = splits[names[0]].column_names
        for column in columns:
            if column not in known:
                raise ValueError(f"{path} must have a column {column}, it has {', '.join(known)}")
        return [splits[name].select_columns([*columns]) for name in names]


def _column(table: Any, name: str, path: Any) -> Array:
    """All values of a column, (N, …): numbers, or words."""
    values = list(table[name])
    for sample, value in enumerate(values):
        if value is None:
            raise ValueError(f"{path}, column {name}, sample {sample} is empty; fill it in or drop it")
        if hasattr(value, "getbands"):  # a picture of Pillow
            if value.mode not in ("L", "RGB"):
                raise ValueError(
                    f"{path}, column {name}, sample {sample} must be a picture of 8 bits, grey or RGB, "
                    f"got mode {value.mode}"
                )
            pixels = np.asarray(value)
            values[sample] = pixels[None] if value.mode == "L" else pixels.transpose(2, 0, 1)
    try:
        array = np.array(values)
    except ValueError as error:  # ragged
        raise ValueError(f"{path}, column {name} must hold values of one shape: {error}") from error
    if array.dtype.kind not in "biufU" or not len(array):
        raise ValueError(
            f"{path}, column {name} must hold numbers, words or pictures, got {array.dtype}"
        )
    if array.dtype.kind == "f":
        check_finite(array, f"{path}, column {name}")
    return array


def _together(columns: Sequence[Array], argument: str, path: Any) -> Tensor:
    """(N, …): one column as it is, single numbers side by side."""
    if not columns:
        raise ValueError(f"{argument} must name columns of {path}, got none")
    if any(column.dtype.kind == "U" for column in columns):
        raise ValueError(f"{argument} must name columns of numbers in {path}, one holds words")
    if len(columns) == 1 and columns[0].ndim > 1:
        return numbers(columns[0])
    if any(column.ndim > 1 for column in columns):
        raise ValueError(
            f"{argument} must name one column of lists in {path}, or several of single numbers"
        )
    return torch.tensor(np.stack(columns, 1).astype(np.float64))


def _targets(
    tables: Sequence[Any], parts: Sequence[Sequence[Array]], names: Sequence[str], task: str, path: Any
) -> tuple[list[Tensor], list[str]]:
    """The targets of every part; for classification as labels, and the names of the classes."""
    if task == "regression":
        return [_together(part, "targets", path) for part in parts], []
    if len(names) != 1:
        raise ValueError(f"targets must be one column for task=classification, got {list(names)}")
    columns = [part[0] for part in parts]
    kind = columns[0].dtype.kind
    if kind == "U":
        words = ordered({str(word) for column in columns for word in column})
        index = {word: label for label, word in enumerate(words)}
        return [torch.tensor([index[str(word)] for word in column]) for column in columns], words
    if kind == "f":
        raise ValueError(f"{path}, column {names[0]} must hold labels, got numbers with fractions")
    labels = [torch.tensor(column.astype(np.int64)) for column in columns]
    largest = max(int(part.max()) for part in labels)
    known = getattr(tables[0].features[names[0]], "names", None)
    classes = known or [str(label) for label in range(largest + 1)]
    for part in labels:
        check_labels(part, len(classes), f"{path}, column {names[0]}")
    return labels, classes

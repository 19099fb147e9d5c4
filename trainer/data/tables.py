"""Tables: scikit-learn's diabetes study, and any CSV file."""

from __future__ import annotations

import csv as reader
from collections.abc import Sequence
from difflib import get_close_matches
from io import StringIO
from math import isfinite, nan
from typing import Any

import torch
from torch import Tensor

from trainer.data.prepare import HELD_OUT, decoded, read, sha256, split
from trainer.data.supervised import check_task, classification, ordered, regression, standardized
from trainer.data.tensors import TensorData


def diabetes(batch_size: int = 32, val_fraction: float = 0.2, seed: int = 0) -> TensorData:
    """Ten figures of each of 442 patients (B, 10), and how far the disease went in a year (B, 1).

    Inputs and targets are standardized with the training patients' figures; ``mae`` is in the units of
    the study, 25 to 346, ``r2`` the share of the variance that is explained (Efron et al. 2004,
    arXiv math/0406456). Linear regression reaches 46.8 and 0.29 on the default split.

    Args:
        batch_size: samples per batch.
        val_fraction: part of the patients that is held out, the same for every seed.
        seed: of the order of the training patients.

    Raises:
        ValueError: for an argument out of range.
    """
    from sklearn.datasets import load_diabetes  # here: it takes a second, and most runs do without

    bunch = load_diabetes(scaled=False)
    inputs, targets = torch.tensor(bunch.data), torch.tensor(bunch.target)[:, None]
    provenance = {
        "source": "sklearn.datasets.load_diabetes",
        "sha256": sha256(bunch.data, bunch.target),
        "inputs": list(bunch.feature_names),
    }
    settings = {"val_fraction": val_fraction, "batch_size": batch_size, "seed": seed}
    return table(inputs, targets, None, provenance, **settings)


def csv(
    path: str,
    targets: str | int | Sequence[str | int],
    task: str = "regression",
    inputs: Sequence[str | int] | None = None,
    delimiter: str = ",",
    header: bool = True,
    batch_size: int = 32,
    val_fraction: float = 0.2,
    drop_last: bool = False,
    seed: int = 0,
) -> TensorData:
    """The rows of a CSV file in UTF-8: numbers (B, columns) to numbers (B, targets) or to a label (B,).

    All numbers are standardized with the training rows' figures. Labels may be any text; in order, by
    number if all are whole numbers, they are the classes.

    Args:
        path: of the file.
        targets: column to be predicted, or columns (regression only), by name; without a header by
            number, from 0.
        task: "regression" or "classification".
        inputs: columns to predict from; None for all others.
        delimiter: one character, or "tab".
        header: whether the first line names the columns.
        batch_size: samples per batch.
        val_fraction: part of the rows that is held out, the same for every seed.
        drop_last: leave out the last batch of an epoch when it is smaller than the others.
        seed: of the order of the training rows.

    Raises:
        ValueError: for an argument out of range, or a file that is no table (line and column named).
    """
    check_task(task)
    content = read(path, ".csv file")
    names, rows = _rows(decoded(content, path), path, delimiter, header)
    wanted = [targets] if isinstance(targets, str | int) else targets
    y = _columns("targets", wanted, names, path)
    x = _columns("inputs", [n for n in names if n not in y] if inputs is None else inputs, names, path)
    if both := {*x} & {*y}:
        raise ValueError(f"inputs must not name what is to be predicted, got {', '.join(sorted(both))}")
    provenance = {"source": str(path), "sha256": sha256(content), "inputs": x, "targets": y}
    settings = {"val_fraction": val_fraction, "drop_last": drop_last}
    settings |= {"batch_size": batch_size, "seed": seed}
    numbers = _numbers(rows, names, x, path)
    if task == "regression":
        return table(numbers, _numbers(rows, names, y, path), None, provenance, **settings)
    if len(y) > 1:
        raise ValueError(f"targets must be one column for task=classification, got {', '.join(y)}")
    words = [word for (word,) in _cells(rows, names, y, path)]
    classes = ordered({*words})
    number = {word: index for index, word in enumerate(classes)}
    labels = torch.tensor([number[word] for word in words])
    return table(numbers, labels, classes, provenance, **settings)


def table(
    inputs: Tensor,
    targets: Tensor,
    classes: Sequence[str] | None,
    provenance: dict[str, Any],
    *,
    val_fraction: float,
    **settings: Any,
) -> TensorData:
    """Standardized columns, split; for classification where there are ``classes``, else regression."""
    train, val = split(len(inputs), val_fraction)
    pairs = standardized((inputs[train], targets[train]), (inputs[val], targets[val]))
    provenance = {**provenance, "split": HELD_OUT, "normalisation": pairs[2]}
    if classes is None:
        return regression(*pairs[:2], standardize=True, provenance=provenance, **settings)
    return classification(*pairs[:2], classes=classes, provenance=provenance, **settings)


Row = tuple[int, list[str]]  # line number, cells


def _rows(text: str, path: Any, delimiter: Any, header: bool) -> tuple[list[str], list[Row]]:
    """The names of the columns and the rows below them, all of that width."""
    mark = "\t" if delimiter == "tab" else delimiter
    if not (isinstance(mark, str) and len(mark) == 1):
        raise ValueError(f"delimiter must be one character, or tab, got {delimiter!r}")
    lines = reader.reader(StringIO(text, newline=""), delimiter=mark, strict=True)
    try:
        rows = [(lines.line_num, cells) for cells in lines if cells]
    except reader.Error as error:
        raise ValueError(f"path must be a table, {path}, line {lines.line_num}: {error}") from error
    if len(rows) <= header:
        raise ValueError(f"path must be a table of at least one row, {path} has none")
    width = len(rows[0][1])
    names = [name.strip() for name in rows.pop(0)[1]] if header else [str(n) for n in range(width)]
    if len({*names}) < width:
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(
            f"path must be a table whose columns differ in name, {path} has {twice!r} twice"
        )
    for line, cells in rows:
        if len(cells) != width:
            raise ValueError(
                f"path must be a table, {path}, line {line} has {len(cells)} cells for {width} columns; "
                "mend the line, or name the delimiter"
            )
    return names, rows


def _columns(argument: str, wanted: Any, names: list[str], path: Any) -> list[str]:
    chosen = [str(name) for name in wanted] if isinstance(wanted, Sequence) else []
    if not chosen:
        raise ValueError(f"{argument} must name columns of {path} ({', '.join(names)}), got {wanted!r}")
    for name in chosen:
        if name not in names:
            near = get_close_matches(name, names, 1)
            remedy = f"did you mean {near[0]}?" if near else f"there are {', '.join(names)}"
            raise ValueError(f"{argument} must name columns of {path}, got {name!r}; {remedy}")
    return chosen


def _cells(rows: list[Row], names: list[str], chosen: list[str], path: Any) -> list[list[str]]:
    """The chosen columns of every row; none may be empty."""
    places = [names.index(name) for name in chosen]
    found = []
    for line, cells in rows:
        found.append([cells[place].strip() for place in places])
        if "" in found[-1]:
            name = chosen[found[-1].index("")]
            raise ValueError(
                f"{path}, line {line}, column {name!r} is empty; fill it in or drop the line"
            )
    return found


def _numbers(rows: list[Row], names: list[str], chosen: list[str], path: Any) -> Tensor:
    """The same as finite numbers, float64."""
    table = []
    for (line, _), words in zip(rows, _cells(rows, names, chosen, path), strict=True):
        table.append([_number(word) for word in words])
        if not all(map(isfinite, table[-1])):
            name, word = next(
                pair for pair in zip(chosen, words, strict=True) if not isfinite(_number(pair[1]))
            )
            raise ValueError(
                f"{path}, line {line}, column {name!r} must be a finite number, got {word!r}; mend it, "
                "drop the line, or choose other columns"
            )
    return torch.tensor(table, dtype=torch.float64)


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return nan

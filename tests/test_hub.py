"""The datasets library of Hugging Face: every format of the same table, from the disk alone."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

datasets = pytest.importorskip("datasets")

from trainer.data.hub import huggingface  # noqa: E402
from trainer.data.tables import csv  # noqa: E402

# Theirs, on the way through their own code.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")

COUNT = 24
TABLE = {
    "a": [float(i) for i in range(COUNT)],
    "b": [(7 * i) % 5 for i in range(COUNT)],
    "y": [2.5 * i + 1 for i in range(COUNT)],
    "word": ["red", "green", "blue"] * (COUNT // 3),
    "label": [i % 4 for i in range(COUNT)],
    "tokens": [[i, i + 1, i + 2] for i in range(COUNT)],
}
SCALARS = {name: values for name, values in TABLE.items() if name != "tokens"}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No connection, and no cache but one that the test would see."""

    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


def written(folder: Path, kind: str) -> Path:
    table = datasets.Dataset.from_dict(SCALARS if kind == "csv" else TABLE)
    path = folder / f"table.{kind}"
    if kind == "parquet":
        table.to_parquet(path)
    elif kind == "csv":
        table.to_csv(path)
    elif kind == "json":
        rows = [{name: values[i] for name, values in TABLE.items()} for i in range(COUNT)]
        path.write_text(json.dumps(rows))
    elif kind == "jsonl":
        table.to_json(path)
    elif kind == "saved":
        table.save_to_disk(path)
    elif kind == "folder":
        path.mkdir()
        table.to_parquet(path / "train-0.parquet")
        table.select(range(6)).to_parquet(path / "test-0.parquet")
    return path


@pytest.mark.parametrize("kind", ["parquet", "csv", "json", "jsonl", "saved", "folder"])
def test_every_format_gives_the_table_that_our_own_reader_gives(kind: str, tmp_path: Path) -> None:
    data = huggingface(str(written(tmp_path, kind)), ["a", "b"], "y")
    plain = tmp_path / "plain.csv"
    datasets.Dataset.from_dict(SCALARS).to_csv(plain)
    expected = csv(str(plain), "y", inputs=["a", "b"])
    for part, known in ((data.train, expected.train), (data.val, expected.val)):
        assert all(torch.equal(x, y) for x, y in zip(part, known, strict=True))
    assert data.provenance["normalisation"] == expected.provenance["normalisation"]
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    ("column", "classes"), [("word", ["blue", "green", "red"]), ("label", ["0", "1", "2", "3"])]
)
def test_labels_are_words_or_whole_numbers(column: str, classes: list[str], tmp_path: Path) -> None:
    data = huggingface(str(written(tmp_path, "parquet")), "tokens", column, task="classification")
    assert data.provenance["classes"] == classes
    assert (data.input_shape, data.output_shape) == ((3,), (len(classes),))
    for inputs, labels in (data.train, data.val):
        assert inputs.dtype == torch.int64  # tokens stay whole numbers
        known = [str(TABLE[column][i]) for i in inputs[:, 0].tolist()]
        assert [classes[label] for label in labels.tolist()] == known


def test_a_split_may_be_named_for_validation(tmp_path: Path) -> None:
    path = str(written(tmp_path, "folder"))
    data = huggingface(path, "tokens", "y", split_val="test")
    assert (data.provenance["train"], data.provenance["val"]) == (COUNT, 6)
    assert data.val[0][:, 0].tolist() == list(range(6))
    with pytest.raises(ValueError, match="must have a split validation, it has train, test"):
        huggingface(path, "tokens", "y", split_val="validation")


def test_pictures_come_with_the_names_of_their_classes(tmp_path: Path) -> None:
    pixels = [np.full((4, 5, 3), i, np.uint8) for i in range(8)]
    features = datasets.Features(
        {"image": datasets.Image(), "kind": datasets.ClassLabel(names=["cat", "dog", "owl"])}
    )
    table = datasets.Dataset.from_dict({"image": pixels, "kind": [i % 2 for i in range(8)]}, features)
    table.save_to_disk(tmp_path / "saved")
    data = huggingface(str(tmp_path / "saved"), "image", "kind", task="classification")
    assert (data.input_shape, data.output_shape) == ((3, 4, 5), (3,))
    assert data.provenance["classes"] == ["cat", "dog", "owl"]
    for images, labels in (data.train, data.val):
        assert torch.equal((255 * images[:, 0, 0, 0]).round().long() % 2, labels)


BAD: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "ragged": ({"x": [[1], [1, 2]]}, {}, "column x must hold values of one shape"),
    "empty": ({"x": [1.0, None]}, {}, "column x, sample 1 is empty"),
    "NaN": ({"x": [1.0, float("nan")]}, {}, "column x must be finite, got nan in sample 1"),
    "words": ({"x": ["a", "b"]}, {}, "inputs must name columns of numbers in"),
    "no column": ({"z": [1, 2]}, {}, "must have a column x, it has z, y"),
    "labels": ({"x": [1, 2], "y": [0.5, 1]}, {"task": "classification"}, "must hold labels, got"),
    "a negative label": ({"x": [1, 2], "y": [-1, 1]}, {"task": "classification"}, "from 0 to 1"),
    "no inputs": ({"x": [1, 2]}, {"inputs": None}, "inputs must name columns of"),
}


@pytest.mark.parametrize("kind", BAD)
def test_data_that_does_not_fit_is_named(kind: str, tmp_path: Path) -> None:
    columns, changes, message = BAD[kind]
    path = tmp_path / "bad.parquet"
    datasets.Dataset.from_dict({**columns, "y": columns.get("y", [1.0, 2.0])}).to_parquet(path)
    with pytest.raises(ValueError, match=message):
        huggingface(**{"path": str(path), "inputs": "x", "targets": "y", **changes})


@pytest.mark.parametrize("content", [b"", b"PAR1 and no more", b"{"], ids=["empty", "cut off", "text"])
@pytest.mark.parametrize("suffix", ["parquet", "json"])
def test_a_damaged_file_is_named(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"bad.{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^path must be data that the datasets library reads, .*bad"):
        huggingface(str(path), "x", "y")

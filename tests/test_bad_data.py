"""Data that cannot be trained on: one line naming file, sample and column; exit 2, nothing created."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Outcome

X, Y, LABELS = np.ones((6, 2)), np.arange(6.0), np.arange(6) % 3
ROWS = "".join(f"{i},{i},{i}\n" for i in range(6))
WITH_NAN = np.where(np.arange(12).reshape(6, 2) == 7, np.nan, 1.0)
RAGGED = np.array([[1], [1, 2]], dtype=object)


def npz(**arrays: Any) -> Callable[[Path], object]:
    return lambda folder: np.savez(folder / "mine.npz", **arrays)


def file(name: str, content: str | bytes) -> Callable[[Path], object]:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def npy(array: Any) -> bytes:
    content = BytesIO()
    np.save(content, array)
    return content.getvalue()


def csv(content: str | bytes) -> Callable[[Path], object]:
    return file("mine.csv", content)


def pictures(*names: str) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        for name in names:
            path = folder / "mine" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"no picture")

    return write


def cut_off(folder: Path) -> None:
    np.savez(folder / "whole", x=X, y=Y)
    whole = folder / "whole.npz"
    (folder / "mine.npz").write_bytes(whole.read_bytes()[:-40])
    whole.unlink()


def flipped(folder: Path) -> None:
    np.savez(folder / "mine", x=np.zeros(4000), y=Y)
    content = bytearray((folder / "mine.npz").read_bytes())
    content[2000] ^= 1
    (folder / "mine.npz").write_bytes(content)


def nothing(folder: Path) -> None:
    pass


NPZ, CSV = "data=npz data.path=mine.npz", "data=csv data.path=mine.csv data.targets=y"
FOLDER = "data=image_folder data.path=mine"
# What is there, what is typed, what is said.
TABLE: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "no npz": (nothing, NPZ, "data.path must be a .npz file that exists, got 'mine.npz'; a relative"),
    "no csv": (nothing, CSV, "data.path must be a .csv file that exists, got 'mine.csv'; a relative"),
    "no text": (nothing, "data=text_file data.path=t.txt", "data.path must be a text file that exists"),
    "no folder": (nothing, FOLDER, "data.path must be a folder that exists, got 'mine'; a relative"),
    "no path": (
        nothing,
        "data=csv data.targets=y",
        "data.path must be a .csv file that exists, got None",
    ),
    "a folder": (
        pictures("a/b.png"),
        f"{NPZ} data.path=mine",
        "data.path must be a .npz file that exists",
    ),
    "the Hub": (
        nothing,
        "data=huggingface data.path=squad",
        "data.path must be a folder or a .parquet, .csv, .json, .jsonl file that exists, got 'squad'; "
        "nothing is fetched from the Hub",
    ),
    "objects": (
        npz(x=RAGGED, y=Y[:2]),
        NPZ,
        "mine.npz, x must be an array of numbers, it is of objects",
    ),
    "words": (
        npz(x=np.array(["a"] * 6), y=Y),
        NPZ,
        "mine.npz, x must be an array of numbers (N, …), got <U1",
    ),
    "a number": (
        npz(x=X, y=np.float64(3)),
        NPZ,
        "mine.npz, y must be an array of numbers (N, …), got float64",
    ),
    "a pickle": (
        file("mine.npz", pickle.dumps({"x": [1]})),
        NPZ,
        "data.path must be an .npz file of numpy.savez, mine.npz is not",
    ),
    "one array": (
        file("mine.npz", npy(X)),
        NPZ,
        "data.path must be an .npz file of numpy.savez, mine.npz holds a single array",
    ),
    "objects alone": (
        file("mine.npz", npy(RAGGED)),
        NPZ,
        "data.path must be an .npz file of numpy.savez, mine.npz is not: Object arrays cannot be loaded",
    ),
    "cut off": (cut_off, NPZ, "data.path must be an .npz file of numpy.savez, mine.npz is not"),
    "flipped": (flipped, NPZ, "mine.npz, x must be an array of numbers, it is damaged: Bad CRC-32"),
    "no y": (npz(x=X, z=Y), NPZ, "mine.npz must hold an array y, it has x, z"),
    "unequal": (npz(x=X, y=Y[:5]), NPZ, "mine.npz must hold as many x as y, got 6 and 5"),
    "none": (npz(x=X[:0], y=Y[:0]), NPZ, "mine.npz, x must hold at least one sample, got none"),
    "one sample": (npz(x=X[:1], y=Y[:1]), NPZ, "data must hold at least two samples, to train and"),
    "NaN": (
        npz(x=WITH_NAN, y=Y),
        NPZ,
        "mine.npz, x must be finite, got nan in sample 3, column 1 (1 in all)",
    ),
    "infinity": (
        npz(x=X, y=np.where(Y > 3, np.inf, Y)),
        NPZ,
        "mine.npz, y must be finite, got inf in sample 4 (2 in all)",
    ),
    "a label": (
        npz(x=X, y=LABELS),
        f"{NPZ} data.task=classification data.classes=2",
        "mine.npz, y must hold labels from 0 to 1, one of 2 classes, got 2 in sample 2 (2 in all)",
    ),
    "a negative label": (
        npz(x=X, y=LABELS - 1),
        f"{NPZ} data.task=classification",
        "mine.npz, y must hold labels from 0 to 1, one of 2 classes, got -1 in sample 0 (2 in all)",
    ),
    "fractions": (
        npz(x=X, y=Y),
        f"{NPZ} data.task=classification",
        "mine.npz, y must hold whole numbers as labels, got float64; use data.task=regression",
    ),
    "a task": (npz(x=X, y=Y), f"{NPZ} data.task=sort", "data.task must be one of regression, classif"),
    "half of two": (npz(x=X, y=Y), f"{NPZ} data.x_val=x", "data.x_val and y_val must both be named"),
    "a batch": (
        npz(x=X, y=Y),
        f"{NPZ} data.drop_last=true data.batch_size=6",
        "data.batch_size must be <= 5, the number of training samples, when the last incomplete batch",
    ),
    "a share": (npz(x=X, y=Y), f"{NPZ} data.val_fraction=1", "data.val_fraction must be > 0 and < 1"),
    "widths": (
        npz(x=X, y=Y[:, None], x_val=np.ones((3, 4)), y_val=Y[:3, None]),
        f"{NPZ} data.x_val=x_val data.y_val=y_val",
        "model=mlp does not take the inputs of data=npz, (4,) float32 a sample",
    ),
    "a model": (npz(x=X, y=Y), f"{NPZ} model=unet", "model=unet"),
    "Latin-1": (
        csv("a,y\né,1\n".encode("latin-1")),
        CSV,
        "data.path must be text in UTF-8, mine.csv is not",
    ),
    "no rows": (csv("a,y\n"), CSV, "data.path must be a table of at least one row, mine.csv has none"),
    "nothing": (csv(""), CSV, "data.path must be a table of at least one row, mine.csv has none"),
    "ragged": (
        csv(f"a,b,y\n{ROWS}1,2\n"),
        CSV,
        "data.path must be a table, mine.csv, line 8 has 2 cells for 3 columns; mend the line, or name",
    ),
    "a quote": (
        csv('a,b,y\n1,"2,3\n'),
        CSV,
        "data.path must be a table, mine.csv, line 2: unexpected end",
    ),
    "twice": (csv(f"a,a,y\n{ROWS}"), CSV, "columns differ in name, mine.csv has 'a' twice"),
    "a word": (
        csv(f"a,b,y\n{ROWS}1,two,3\n"),
        CSV,
        "mine.csv, line 8, column 'b' must be a finite number, got 'two'; mend it, drop the line, or",
    ),
    "nan": (
        csv(f"a,b,y\n{ROWS}1,2,nan\n"),
        CSV,
        "line 8, column 'y' must be a finite number, got 'nan'",
    ),
    "a gap": (csv(f"a,b,y\n{ROWS}1,,3\n"), CSV, "mine.csv, line 8, column 'b' is empty; fill it in or"),
    "a column": (
        csv(f"a,price,y\n{ROWS}"),
        f"{CSV} data.targets=prise",
        "data.targets must name columns of mine.csv, got 'prise'; did you mean price?",
    ),
    "no target": (
        csv(f"a,b,y\n{ROWS}"),
        "data=csv data.path=mine.csv",
        "data.targets must name columns of mine.csv (a, b, y), got None",
    ),
    "itself": (
        csv(f"a,b,y\n{ROWS}"),
        f"{CSV} data.inputs=[a,y]",
        "data.inputs must not name what is to be predicted, got y",
    ),
    "no inputs": (
        csv(f"y\n{ROWS}".replace(",", "")),
        CSV,
        "data.inputs must name columns of mine.csv (y)",
    ),
    "two labels": (
        csv(f"a,b,y\n{ROWS}"),
        f"{CSV} data.targets=[b,y] data.task=classification",
        "data.targets must be one column for task=classification, got b, y",
    ),
    "delimiters": (
        csv(f"a,b,y\n{ROWS}"),
        f"{CSV} data.delimiter=::",
        "data.delimiter must be one character, or tab, got '::'",
    ),
    "one line": (csv("a,b,y\n1,2,3\n"), CSV, "data must hold at least two samples, to train and"),
    "no UTF-8": (
        file("t.txt", b"abc\xff"),
        "data=text_file data.path=t.txt",
        "data.path must be text in UTF-8, t.txt is not from byte 3 on; convert it: iconv -t UTF-8",
    ),
    "a short text": (
        file("t.txt", "abc" * 99),
        "data=text_file data.path=t.txt",
        "data.length must be at most half the training text, 169 characters, and at most",
    ),
    "an empty text": (
        file("t.txt", ""),
        "data=text_file data.path=t.txt",
        "data.length must be at most",
    ),
    "one class": (
        pictures("cat/1.png"),
        FOLDER,
        "must hold a folder of pictures for each class, got mine",
    ),
    "a stray file": (
        pictures("cat/1.png", "list.txt"),
        FOLDER,
        "data.path must hold a folder for each class and nothing else, got mine/list.txt",
    ),
    "no picture": (
        pictures("cat/1.png", "dog/2.png"),
        FOLDER,
        "mine/cat/1.png must be a picture that can be read: cannot identify image file",
    ),
    "a colour": (pictures("a/b.png"), f"{FOLDER} data.channels=2", "data.channels must be 3 for colour"),
}


@pytest.mark.parametrize("kind", TABLE)
def test_it_is_refused_in_a_line_and_nothing_is_made(
    kind: str, command: Callable[..., Outcome], tmp_path: Path
) -> None:
    write, typed, line = TABLE[kind]
    write(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    outcome = command("model=mlp", "loss=mse", "trainer.max_steps=2", *typed.split(" "))
    assert outcome.code == 2, outcome.err
    assert line in outcome.err
    assert outcome.err.startswith("train.py: ")
    assert len(outcome.err.strip().splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_that_may_not_be_read_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By an error of the file system, as root may read every file."""
    from trainer.data.tables import csv as table

    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "mine.csv").touch()
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(ValueError, match=r"^path must be a \.csv file that can be read, .*Permission"):
        table(str(tmp_path / "mine.csv"), "y")

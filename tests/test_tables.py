"""Tables: standardized by the training rows alone, every row once, metrics in the table's own units."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression
from sklearn.metrics import mean_absolute_error, r2_score
from torch import Tensor

from trainer.data.tables import csv, diabetes
from trainer.data.tensors import TensorData

ROWS = [(i, (7 * i) % 11, ("red", "green", "blue")[i % 3], 2 * i + 5) for i in range(20)]
TABLE = "a,b,colour,price\n" + "".join(f"{a},{b},{c},{p}\n" for a, b, c, p in ROWS)


@pytest.fixture
def table(tmp_path: Path) -> str:
    path = tmp_path / "table.csv"
    path.write_text(TABLE)
    return str(path)


def undone(values: Tensor, mean: Any, std: Any) -> Tensor:
    """Standardized columns as they were."""
    return values.double() * torch.tensor(std) + torch.tensor(mean)


def whole(data: TensorData) -> list[tuple[float, ...]]:
    """Every row of either part, in the units of the table, in order."""
    scales = data.provenance["normalisation"]
    rows = []
    for inputs, targets in (data.train, data.val):
        x = undone(inputs, scales["mean"], scales["std"])
        y = undone(targets, scales["target_mean"], scales["target_std"])
        rows += [tuple(row) for row in torch.cat([x, y], 1).round(decimals=2).tolist()]
    return sorted(rows)


def test_every_patient_is_in_one_part_once() -> None:
    data, known = diabetes(), load_diabetes(scaled=False)
    assert (len(data.train[0]), len(data.val[0])) == (354, 88)
    assert (data.input_shape, data.output_shape) == ((10,), (1,))
    expected = np.column_stack([known.data, known.target]).round(2)
    np.testing.assert_allclose(whole(data), sorted(map(tuple, expected)), atol=0.011)


def test_columns_are_standardized_by_the_training_patients_alone() -> None:
    inputs, targets = diabetes().train
    for columns in (inputs.double(), targets.double()):
        assert columns.mean(0).abs().max() < 1e-6
        torch.testing.assert_close(columns.std(0, correction=0), torch.ones_like(columns[0]))
    assert diabetes().val[0].mean(0).abs().max() > 0.05


def test_the_metrics_are_those_of_the_study_in_its_own_units() -> None:
    """Against scikit-learn's figures, of its own linear regression on the unscaled targets."""
    data = diabetes()
    scales = data.provenance["normalisation"]
    (x, y), (val_x, val_y) = ([t.double() for t in part] for part in (data.train, data.val))
    found = torch.tensor(LinearRegression().fit(x, y).predict(val_x))
    mean, std = scales["target_mean"][0], scales["target_std"][0]
    truth, guess = val_y * std + mean, found * std + mean
    figures = {name: m.function(found, val_y).mean().item() for name, m in data.metrics.items()}
    assert figures["mae"] == pytest.approx(mean_absolute_error(truth, guess))
    assert figures["r2"] == pytest.approx(r2_score(truth, guess))
    assert [m.higher_is_better for m in data.metrics.values()] == [False, True]
    assert (round(figures["mae"], 1), round(figures["r2"], 2)) == (46.8, 0.29)  # as the docstring says


def test_a_table_is_read_by_the_names_of_its_columns(table: str) -> None:
    data = csv(table, "price", inputs=["b", "a"])
    assert whole(data) == sorted((float(b), float(a), float(p)) for a, b, _, p in ROWS)
    assert data.provenance["inputs"] == ["b", "a"]
    several = csv(table, ["price", "a"], inputs=["b"])
    assert (several.input_shape, several.output_shape) == ((1,), (2,))


@pytest.mark.parametrize(("delimiter", "mark"), [(";", ";"), ("tab", "\t"), ("|", "|")])
@pytest.mark.parametrize("header", [True, False])
def test_a_table_may_be_written_otherwise(
    tmp_path: Path, delimiter: str, mark: str, header: bool
) -> None:
    path = tmp_path / "other.csv"
    lines = TABLE.replace(",", mark).replace("red", '"red"').splitlines(keepends=True)
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines[not header :]).encode())
    columns = ["a", "b", "price"] if header else [0, 1, 3]
    data = csv(str(path), columns[-1], inputs=columns[:2], delimiter=delimiter, header=header)
    assert whole(data) == sorted((float(a), float(b), float(p)) for a, b, _, p in ROWS)


def test_labels_are_the_words_of_a_column_in_order(table: str) -> None:
    data = csv(table, "colour", task="classification", inputs=["a", "b"])
    assert data.provenance["classes"] == ["blue", "green", "red"]
    assert data.output_shape == (3,)
    scales = data.provenance["normalisation"]
    for inputs, labels in (data.train, data.val):
        a = undone(inputs, scales["mean"], scales["std"])[:, 0].round().long()
        assert labels.tolist() == [(2, 1, 0)[i % 3] for i in a.tolist()]  # red, green, blue
    assert list(data.metrics) == ["accuracy"]


def test_labels_that_are_numbers_are_in_the_order_of_numbers(table: str) -> None:
    data = csv(table, "b", task="classification", inputs=["a"])
    assert data.provenance["classes"] == [str(n) for n in range(11)]


def test_a_constant_column_is_zero_and_no_division_by_it(tmp_path: Path) -> None:
    path = tmp_path / "flat.csv"
    path.write_text("x,same,y\n" + "".join(f"{i},0.1,3\n" for i in range(9)))
    data = csv(str(path), "y")
    for inputs, targets in (data.train, data.val):
        assert inputs[:, 1].abs().max() < 1e-12
        assert targets.abs().max() < 1e-12
    assert list(data.metrics) == ["mae"]  # of what does not vary, nothing can be explained


def test_split_and_scale_are_the_same_for_every_seed(table: str) -> None:
    first, second = csv(table, "price", inputs=["a"]), csv(table, "price", inputs=["a"], seed=9)
    assert first.provenance == second.provenance
    assert torch.equal(first.val[0], second.val[0])
    assert not torch.equal(next(first.batches(0))[0], next(second.batches(0))[0])

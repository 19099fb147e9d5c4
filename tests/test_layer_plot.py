"""The heat map of the gradient's way through the layers."""

from pathlib import Path
from typing import Any

from test_curves import size_of, write

from trainer.pictures.layer_plot import _rows, draw_layers
from trainer.series import read_series


def record(names: list[str], values: list[Any]) -> list[dict[str, Any]]:
    return [
        {"step": step, **{f"layers/{name}/grad_norm": value for name in names}}
        for step, value in enumerate(values)
    ]


def test_layers_are_rows_in_the_order_of_the_record(tmp_path: Path) -> None:
    names = ["encoder.0", "a/b", "head"]
    write(tmp_path, record(names, [1.0, 2.0]))
    series, _ = read_series(tmp_path / "metrics.jsonl")
    assert list(_rows(series, "grad_norm")) == names
    assert _rows(series, "update_ratio") == {}


def test_more_layers_make_a_taller_picture(tmp_path: Path) -> None:
    write(tmp_path, record(["a", "b"], [1.0, 2.0, 0.5]))
    _, low = size_of(draw_layers(tmp_path))
    write(tmp_path, record([f"layer{i}" for i in range(40)], [1.0, 2.0, 0.5]))
    assert size_of(draw_layers(tmp_path))[1] > low + 300


def test_zeros_gaps_and_equal_values_are_drawn(tmp_path: Path) -> None:
    for values in ([0.0, None, 1e-30, 1e30], [0.0, 0.0], [1.0, 1.0]):
        write(tmp_path, record(["a"], values))
        size_of(draw_layers(tmp_path))


def test_without_such_tags_there_is_no_picture(tmp_path: Path) -> None:
    write(tmp_path, [{"step": 1, "grad/norm": 1.0}, {"step": 2, "grad/norm": 1.0}])
    assert draw_layers(tmp_path) is None

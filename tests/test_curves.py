"""Pictures from a record: written where asked, whatever the record lacks."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from trainer.pictures import curves


def write(folder: Path, lines: list[dict[str, Any]], tail: str = "") -> None:
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text + tail, encoding="utf-8")


def full_record(steps: int = 60) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        norm = 3.0 / step + 0.5
        line: dict[str, Any] = {"step": step, "epoch": 1, "lr": 1e-3 / step}
        line |= {"train/loss": 1.0 / step, "train/loss/mse": 0.8 / step}
        line |= {"grad/norm": norm, "grad/norm_max": 2 * norm, "grad/norm_clipped": min(norm, 1.0)}
        line |= {"grad/clipped": 0.5, "grad/threshold": 1.0, "guard/skipped": step // 20}
        lines.append(line)
        if step % 10 == 0:
            validation = {"val/loss": 1.1 / step, "val/psnr": 10.0 + step / 10, "val/ssim": 0.5}
            lines.append({"step": step, "epoch": 1, **validation})
    return lines


def images(count: int = 12, size: int = 8) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).random((count, 1, size, size))


def size_of(path: Path | None) -> tuple[int, int]:
    assert path is not None
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return picture.size


def test_a_full_record_gives_a_picture_with_the_strip(tmp_path: Path) -> None:
    write(tmp_path, full_record(), tail='{"step": 61, "tra')
    summary = {
        "status": "completed",
        "objective": {"tag": "val/psnr", "value": 16.0},
        "metrics": {"val/psnr": {"first": 11.0, "best": 16.0, "last": 16.0}},
        "clip": {"mode": "ClipByNorm", "fraction": 0.1, "suggested_max_norm": 0.9},
    }
    (tmp_path / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    without = size_of(curves.draw_curves(tmp_path))
    clean = images()
    np.savez(tmp_path / "samples.npz", input=clean, prediction=clean, target=clean)
    path = curves.draw_curves(tmp_path)
    width, height = size_of(path)
    assert path == tmp_path / "curves.png"
    assert width == without[0]
    assert 1000 < width < 2000
    assert height > without[1] + 200
    assert 20_000 < path.stat().st_size < 1_000_000


@pytest.mark.parametrize("tag", ["train/loss", "val/loss", "val/psnr", "grad/norm", "lr"])
def test_one_tag_alone_is_drawn(tmp_path: Path, tag: str) -> None:
    write(tmp_path, [{"step": step, "epoch": 1, tag: 0.1 * step} for step in (1, 2, 3)])
    size_of(curves.draw_curves(tmp_path))


def test_nulls_zeros_and_equal_values_are_drawn(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = []
    for step, norm in enumerate([0.0, 1.0, None, 1e30, None, 3.0], 1):
        norms = {"grad/norm": norm, "grad/norm_max": norm, "grad/norm_clipped": 0.0}
        lines.append({"step": step, "epoch": 1, "train/loss": 0.25, "val/mae": None, **norms})
    write(tmp_path, lines)
    size_of(curves.draw_curves(tmp_path))


def test_a_diverging_loss_is_drawn(tmp_path: Path) -> None:
    losses = [0.5, 0.1, 1e4, 1e38, None, None]
    lines = [{"step": i, "epoch": 1, "train/loss": loss} for i, loss in enumerate(losses)]
    write(tmp_path, lines)
    (tmp_path / "summary.json").write_text('{"status": "diverged", "objective": null}')
    size_of(curves.draw_curves(tmp_path))


def test_a_term_that_is_all_of_the_loss_does_not_hide_it() -> None:
    from matplotlib.figure import Figure

    steps, losses = np.arange(5.0), np.array([3.0, 2.0, math.nan, 1.0, 0.5])
    whole, part = (steps, losses), (steps, 0.9 * losses)
    cases: tuple[dict[str, Any], ...] = ({"mse": whole}, {"mse": part}, {"mse": part, "z": whole}, {})
    for terms, shown in zip(cases, ([], ["mse"], ["mse"], []), strict=True):
        axes = Figure().add_subplot()
        curves._loss(axes, {"train/loss": whole} | {f"train/loss/{k}": v for k, v in terms.items()})
        assert [text.get_text() for text in axes.get_legend().get_texts()] == ["train", *shown]


def test_fewer_than_two_points_are_no_curve(tmp_path: Path) -> None:
    assert curves.draw_curves(tmp_path) is None
    write(tmp_path, [])
    assert curves.draw_curves(tmp_path) is None
    write(tmp_path, [{"step": 1, "train/loss": 0.5}, {"step": 1, "val/psnr": 12.0}])
    assert curves.draw_curves(tmp_path) is None
    write(tmp_path, [{"step": 1, "train/loss": None}, {"step": 2, "train/loss": None}])
    assert curves.draw_curves(tmp_path) is None
    assert not (tmp_path / "curves.png").exists()


def test_matplotlib_waits_until_something_is_drawn() -> None:
    code = "import sys, trainer.pictures.curves; sys.exit('matplotlib' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_samples_that_are_no_images_are_left_out(tmp_path: Path) -> None:
    write(tmp_path, full_record(3))
    expected = size_of(curves.draw_curves(tmp_path))
    rows = np.zeros((4, 10))
    np.savez(tmp_path / "samples.npz", input=rows, prediction=rows, target=rows)
    assert size_of(curves.draw_curves(tmp_path)) == expected
    target = images(4)
    target[0] = math.nan
    np.savez(tmp_path / "samples.npz", input=images(4, 4), prediction=target, target=target)
    assert size_of(curves.draw_curves(tmp_path))[1] > expected[1]

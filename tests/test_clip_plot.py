"""The picture of what clipping did."""

from pathlib import Path

import numpy as np
from test_curves import full_record, size_of, write

from trainer.pictures.clip_plot import _kept, draw_clip


def test_it_is_drawn_where_there_are_norms(tmp_path: Path) -> None:
    assert draw_clip(tmp_path) is None
    write(tmp_path, full_record(1))
    assert draw_clip(tmp_path) is None
    write(tmp_path, full_record(5))
    assert size_of(draw_clip(tmp_path))[0] > 1000


def test_what_is_left_is_the_norm_after_over_the_norm_before() -> None:
    steps = np.arange(3.0)
    series = {"grad/norm": (steps, np.array([2.0, 0.5, 0.0]))}
    series["grad/norm_clipped"] = (steps, np.array([1.0, 0.5, 0.0]))
    assert _kept(series)["kept"][1].tolist() == [50.0, 100.0, 100.0]


def test_a_record_without_thresholds_and_with_gaps_is_drawn(tmp_path: Path) -> None:
    norms = [1.0, None, 3.0]
    lines = [{"step": i, "grad/norm": n, "grad/norm_clipped": n} for i, n in enumerate(norms)]
    write(tmp_path, lines)
    size_of(draw_clip(tmp_path))

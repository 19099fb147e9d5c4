"""The picture of all schedules shows every one of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from schedule_formulas import PATHS

from benchmarks import schedules


def test_every_schedule_has_a_panel_with_its_own_curve(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("sys.argv", ["schedules", "--out", str(tmp_path / "a.png")])
    schedules.main()
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    curves = {path.stem: schedules.rates(path) for path in PATHS}
    assert len({tuple(curve) for curve in curves.values()}) == len(PATHS)
    assert all(0 <= rate <= 1 for curve in curves.values() for rate in curve)
    panels = schedules.draw(curves).axes
    titles = [axes.get_title(loc="left") for axes in panels if axes.get_visible()]
    assert titles == [f"scheduler={name}" for name in curves]
    for axes, curve in zip(panels, curves.values(), strict=False):
        assert list(axes.lines[-1].get_ydata()) == curve
        assert len(axes.lines) == len(curves) + 1

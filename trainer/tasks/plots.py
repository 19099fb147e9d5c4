"""The pictures of a run or a sweep, drawn again from its record."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trainer.console import Console
from trainer.resume import CannotResume, overrides_of
from trainer.sweeps.comparison import compare
from trainer.sweeps.jobs import SweptJob, swept_before
from trainer.sweeps.report import write_report
from trainer.wording import typed


class Plots:
    """Draws what a folder's ``metrics.jsonl`` and ``summary.json`` hold; trains nothing, and needs no
    part of the run, whose data may be gone."""

    def check(self, folder: Path) -> None:
        """Refuses a folder without a record.

        Raises:
            ValueError: if it holds neither a run nor a sweep.
        """
        if not (folder / "metrics.jsonl").exists() and not _jobs(folder):
            raise ValueError(
                f"resume must name a run or a sweep that has recorded a step, got {folder}; "
                "task=plots resume=outputs/<date>/<time>"
            )

    def run(self, folder: Path, console: Console) -> dict[str, Any]:
        """Draws the pictures and says where they are; returns a short summary."""
        self.check(folder)
        is_run = (folder / "metrics.jsonl").exists()
        drawn = draw_run(folder) if is_run else draw_sweep(folder)
        for path in drawn:
            console.line(typed(path))
        if not drawn:
            console.note(f"{typed(folder)} has fewer than two logged steps: there is no curve to draw")
        return {"status": "completed", "reason": "", "seconds": 0.0, "objective": None}


def draw_run(folder: Path) -> list[Path]:
    """Draws curves.png, clip.png and layers.png into the folder of a run, as far as its record has what
    is in them; returns their paths."""
    from trainer.pictures.clip_plot import draw_clip
    from trainer.pictures.curves import draw_curves
    from trainer.pictures.layer_plot import draw_layers

    drawn = (draw_curves(folder), draw_clip(folder), draw_layers(folder))
    return [path for path in drawn if path is not None]


def draw_sweep(folder: Path) -> list[Path]:
    """Draws runs.png, the curves of all jobs of a sweep over each other, with several seeds
    comparison.png, and the report with its pictures; returns their paths."""
    from trainer.pictures.comparison_plot import draw_comparison
    from trainer.pictures.runs_plot import draw_runs

    jobs = _jobs(folder)
    drawn = [draw_runs(jobs, folder / "runs.png")]
    if (comparison := compare(jobs)) is not None:
        drawn.append(draw_comparison(comparison, folder / "comparison.png"))
    drawn += write_report(jobs, folder).paths
    return [path for path in drawn if path is not None]


def _jobs(folder: Path) -> list[SweptJob]:
    """The jobs of a sweep that have a record or failed before, in the order they were started."""
    files = [*folder.glob("*/metrics.jsonl"), *folder.glob("*/summary.json")]
    folders = list({path.parent for path in files})
    folders.sort(key=lambda path: (len(path.name), path.name))  # 2 before 10
    return [SweptJob(_overrides(path), path, swept_before(path) or _summary(path)) for path in folders]


def _overrides(folder: Path) -> list[str]:
    try:
        return overrides_of(folder)
    except CannotResume:
        return [f"run={folder.name}"]


def _summary(folder: Path) -> dict[str, Any]:
    path = folder / "summary.json"
    summary = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return {"status": None, "objective": None, **summary}

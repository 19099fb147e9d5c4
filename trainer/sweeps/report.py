"""The report of a sweep: ``report.md`` to read, ``report.csv`` to reckon with, and their pictures."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.sweeps.comparison import Entry, settings_of
from trainer.sweeps.report_text import figure, objective, text
from trainer.sweeps.stability import maps, rates

MEASURED = {
    "steps": ("steps",),
    "seconds": ("seconds",),
    "largest_norm": ("grad_norm", "max"),
    "spikes": ("spikes", "loss"),
    "clipped": ("clip", "fraction"),
    "refused": ("guard", "skipped"),
    "rewound": ("guard", "rewound"),
}


@dataclass(frozen=True, slots=True)
class Report:
    """What was written, and why a picture is missing, or ""."""

    text: Path
    table: Path
    pictures: list[Path]
    missing: str

    @property
    def paths(self) -> list[Path]:
        """Of all files."""
        return [self.text, self.table, *self.pictures]


def write_report(jobs: Sequence[Entry], folder: Path) -> Report:
    """Writes ``report.csv``, draws ``report.png`` and, with two numbers swept, ``stability_map.png``,
    and writes ``report.md``, which shows them.

    Args:
        jobs: of the sweep, in its order; at least one.
        folder: of the sweep.

    Raises:
        OSError: if text or table cannot be written.
    """
    ranked = sorted(jobs, key=lambda job: (job.summary["status"] != "completed", job.badness))
    report, table = folder / "report.md", folder / "report.csv"
    _write_table(ranked, table)
    pictures: list[Path] = []
    missing = ""
    try:
        pictures = draw_report(jobs, folder)
    except Exception as error:  # whatever cannot be drawn, the sweep is done
        missing = f"{type(error).__name__}: {error}"
    report.write_text(text(jobs, ranked, [path.name for path in pictures]), encoding="utf-8")
    return Report(report, table, pictures, missing)


def draw_report(jobs: Sequence[Entry], folder: Path) -> list[Path]:
    """Draws the pictures of a report alone; returns their paths."""
    from trainer.pictures.report_plot import draw_overview  # matplotlib takes as long to import as torch
    from trainer.pictures.stability_plot import draw_maps

    found = maps(jobs)
    drawn = [draw_overview(jobs, folder / "report.png")]
    if found:
        drawn.append(draw_maps(found, rates(jobs), objective(jobs), folder / "stability_map.png"))
    return [path for path in drawn if path is not None]


def _write_table(ranked: Sequence[Entry], path: Path) -> None:
    settings = dict(zip(map(id, ranked), settings_of(ranked), strict=True))
    keys = dict.fromkeys(key for job in ranked for key in settings[id(job)])
    metrics = [job.summary.get("metrics") or {} for job in ranked]
    tags = [tag for tag in dict.fromkeys(tag for own in metrics for tag in own) if _is_metric(tag)]
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["job", *keys, "objective", "status", *tags, *MEASURED, "reason"])
        for job, own in zip(ranked, metrics, strict=True):
            typed = [settings[id(job)].get(key) for key in keys]
            last = [own.get(tag, {}).get("last") for tag in tags]
            measured = [figure(job, *where) for where in MEASURED.values()]
            ended = [job.value, job.summary["status"]]
            writer.writerow(
                [job.folder.name, *typed, *ended, *last, *measured, job.summary.get("reason")]
            )


def _is_metric(tag: str) -> bool:
    return tag.startswith(("val/", "train/"))

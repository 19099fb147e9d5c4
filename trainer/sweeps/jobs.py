"""What a sweep leaves behind: one table of its jobs, best first, and ``sweep.json``; with several seeds
also a table that compares what the jobs differ in, and ``comparison.png``.

A job that has ended stays as it is when the same sweep is started again, so an interrupted sweep is
finished by typing it once more with ``resume=auto``.
"""

from __future__ import annotations

import json
import math
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from trainer.closing import STATUS_STYLES, short
from trainer.record import finite, write_summary
from trainer.resume import status_of
from trainer.sweeps.comparison import Comparison, compare, settings_of
from trainer.sweeps.report import write_report
from trainer.sweeps.report_text import best_of, command_of, compared
from trainer.wording import MISSING, number, typed

MOST_ROWS, BEST, WORST = 20, 12, 3  # jobs in a table; of more, so many of the best and of the worst
LOG_WIDTH = 160
EXPLAINED = (
    "mean ± standard deviation over the seeds, without diverged runs; better by: mean ± standard error "
    "of the differences to {reference}, seed by seed; largest norm: median; spikes: share of losses"
)


@dataclass(frozen=True, slots=True)
class SweptJob:
    """A finished job: its overrides as typed, its folder, its summary."""

    overrides: list[str]
    folder: Path
    summary: dict[str, Any]

    @property
    def value(self) -> float | None:
        """The objective; None where there is none."""
        value: float | None = (self.summary["objective"] or {}).get("value")
        return value

    @property
    def badness(self) -> float:
        """The objective as a number that is smaller for a better job; inf where there is none."""
        if self.value is None or math.isnan(self.value):
            return math.inf
        return -self.value if self.summary["objective"]["higher_is_better"] else self.value


def swept_before(folder: Path) -> dict[str, Any] | None:
    """The summary of a job that needs no second start: it is through, or diverged."""
    if status_of(folder) not in ("completed", "diverged"):
        return None
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    if summary["status"] == "diverged":  # JSON has no inf
        summary["objective"]["value"] = (
            -math.inf if summary["objective"]["higher_is_better"] else math.inf
        )
    return summary


def keep_failure(folder: Path, error: BaseException | str) -> dict[str, Any]:
    """Leaves a summary of what a job failed of, and the traceback if there is one, in its folder; unless
    another process works there."""
    if isinstance(error, SystemExit):
        reason = error.code if isinstance(error.code, str) else f"it called sys.exit({error.code})"
    elif isinstance(error, BaseException):
        reason = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    else:
        reason = error
    summary = {"status": "failed", "reason": reason, "objective": None}
    if not isinstance(error, BlockingIOError):
        trace = traceback.format_exception(error) if isinstance(error, BaseException) else [reason, "\n"]
        (folder / "traceback.txt").write_text("".join(trace), encoding="utf-8")
        if status_of(folder) != "failed":  # it did not come to train
            write_summary(folder, summary)
    return summary


def ending(summary: Mapping[str, Any], folder: Path) -> str:
    """How a job ended, in a line; if not well, of what, and where to look."""
    status = summary["status"]
    if status == "completed":
        return short(summary)
    trace = folder / "traceback.txt"
    where = trace if status == "failed" and trace.exists() else folder
    return f"{status}: {summary.get('reason') or 'it says no more'} ({typed(where)})"


def close_sweep(jobs: Sequence[SweptJob], folder: Path) -> None:
    """Prints job, objective, status and what the jobs differ in, what several seeds say of that, and the
    command that shows the curves; leaves the same in ``sweep.json`` and draws ``comparison.png``."""
    if not jobs:
        return
    rows = [
        {
            "job": j.folder.name,
            "overrides": j.overrides,
            "status": j.summary["status"],
            "objective": j.value,
        }
        for j in jobs
    ]
    failed = [job for job in jobs if job.summary["status"] == "failed"]
    comparison = compare(jobs)
    sweep = {"status": "failed" if failed else "completed", "jobs": rows}
    if comparison is not None:
        sweep["comparison"] = comparison.rows()
    (folder / "sweep.json").write_text(json.dumps(finite(sweep), indent=2) + "\n", encoding="utf-8")
    out = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    if not out.is_terminal:  # a log has no width, and cut figures are none
        out.width = max(out.width, LOG_WIDTH)
    _print(out, "", _table(jobs, WORST if comparison is not None else BEST), "")
    if comparison is not None:
        _print(out, _comparison(comparison))
        reference = comparison.variants[0].name or "the first"
        out.print(Text(EXPLAINED.format(reference=reference), "dim"), "", sep="\n")
        _draw(comparison, folder, out)
    _report(jobs, folder, out)
    if failed:
        retry = f"python train.py resume={typed(folder)}"
        out.print(f"{len(failed)} of {len(jobs)} jobs failed; {retry} tries them again", soft_wrap=True)
    if (best := best_of(jobs, comparison)) is not None:
        out.print(f"best again  {command_of(best)}", soft_wrap=True)
    out.print(Text(f"tensorboard --logdir {typed(folder)}", "bold"), soft_wrap=True)


def _print(out: Console, *parts: RenderableType) -> None:
    """Cells come padded to their column, and blanks at line ends would litter a log."""
    with out.capture() as captured:
        out.print(*parts, sep="\n")
    for line in Text.from_ansi(captured.get()).split():
        line.rstrip()
        out.print(line, soft_wrap=True)


def _report(jobs: Sequence[SweptJob], folder: Path, out: Console) -> None:
    try:
        report = write_report(jobs, folder)
        out.print(f"report      {typed(report.text)}", soft_wrap=True)
        if report.missing:
            out.print(f"a picture of the report is not drawn: {report.missing}", soft_wrap=True)
    except OSError as error:
        out.print(f"the report is not written: {error}", soft_wrap=True)


def _draw(comparison: Comparison, folder: Path, out: Console) -> None:
    try:
        from trainer.pictures.comparison_plot import draw_comparison  # matplotlib takes as long as torch

        picture = draw_comparison(comparison, folder / "comparison.png")
        out.print(f"comparison  {typed(picture)}", soft_wrap=True)
    except OSError as error:
        out.print(f"comparison.png is not drawn: {error}", soft_wrap=True)


def _comparison(comparison: Comparison) -> Table:
    """One row per variant, the best mean in bold."""
    headings, *rows = compared(comparison)
    settings = headings.index("runs")
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False, header_style="dim")
    for column, heading in enumerate(headings):
        right = column >= settings and heading
        table.add_column(heading, justify="right" if right else "left", no_wrap=column >= settings)
    for variant, row in zip(comparison.variants, rows, strict=True):
        table.add_row(*row, style="bold" if variant is comparison.best else "")
    return table


def _table(jobs: Sequence[SweptJob], most_best: int) -> Table:
    """One row per job, the best first: what it has reached, and its own values of what was swept; of
    very many jobs so many of the best."""
    settings = dict(zip(map(id, jobs), settings_of(jobs), strict=True))
    keys = list(dict.fromkeys(key for own in settings.values() for key in own))
    tags = [job.summary["objective"]["tag"] for job in jobs if job.summary["objective"]]
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("job", justify="right")
    table.add_column(tags[0] if tags else "objective", justify="right", no_wrap=True)
    for heading in ("", *keys, ""):
        table.add_column(heading, overflow="fold")
    ranked = sorted(jobs, key=lambda job: job.badness)
    hidden = len(jobs) - most_best - WORST if len(jobs) > MOST_ROWS else 0
    for rank, job in enumerate(ranked):
        if rank == most_best and hidden:
            told = f"{hidden} more, in sweep.json"
            table.add_row("…", *[""] * (2 + len(keys)), told, style="dim")
        if most_best <= rank < most_best + hidden:
            continue
        status = job.summary["status"]
        style = STATUS_STYLES.get(status, "bold red")
        own = [settings[id(job)].get(key, MISSING) for key in keys]
        reason = Text(str(job.summary.get("reason") or ""))
        table.add_row(job.folder.name, number(job.value), Text(status, style), *own, reason)
    return table

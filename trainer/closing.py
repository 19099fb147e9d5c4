"""The tables that close a run and a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from trainer.wording import MISSING, clock, count, is_number, number, percent

WIDEST = 110
STATUS_STYLES = {"completed": "bold green", "interrupted": "bold yellow"}


def figures(summary: Mapping[str, Any]) -> Table:
    """Metrics over first, best and last, then the gradient norm over median, p99 and max."""
    objective, norm = summary.get("objective") or {}, summary.get("grad_norm") or {}
    metrics: Mapping[str, Any] = summary.get("metrics") or {}
    aim = objective.get("tag")
    table = Table(box=None, padding=(0, 3, 0, 0), show_header=False, pad_edge=False)
    for column in range(5):
        table.add_column(justify="right" if 1 <= column <= 3 else "left", no_wrap=True)
    # Norms, clipping and learning rate are metrics in the summary too; they have their own lines.
    tags = [tag for tag in metrics if tag.startswith(("val/", "train/")) or tag == aim]
    if tags:
        table.add_row("", "first", "best", "last", style="dim")
    for tag in sorted(tags, key=lambda tag: (tag != aim, tag[:4] != "val/")):
        figures = [number(metrics[tag].get(key)) for key in ("first", "best", "last")]
        remark = f"objective {number(objective.get('value'))}" if tag == aim else ""
        table.add_row(tag, *figures, remark, style="bold" if tag == aim else "")
    if norm:
        table.add_row()
        table.add_row("", "median", "p99", "max", style="dim")
        figures = [number(norm.get(key)) for key in ("median", "p99", "max")]
        table.add_row("gradient norm", *figures)
    return table


def facts(summary: Mapping[str, Any]) -> Table:
    """What clipping and the guard did, how the run ended, how long it took."""
    clip, guard = summary.get("clip") or {}, summary.get("guard") or {}
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True, min_width=10)
    table.add_column(max_width=WIDEST - 12)
    if clip:
        table.add_row("clipping", Text(_clipping(clip)))
    if clip.get("verdict"):
        table.add_row("", Text(str(clip["verdict"])))
    inside = summary.get("diagnostics") or {}
    if inside.get("clipped_by"):
        longest = ", ".join(f"{name} {percent(v)}" for name, v in inside["clipped_by"].items())
        table.add_row("", Text(f"of the squared norm when it bound: {longest}"))
    if warnings := (inside.get("warnings") or {}).get("count"):
        table.add_row("warnings", Text(f"{count(warnings, 'layer')} left its past before the loss did"))
    if guard.get("skipped") or guard.get("rewound"):
        table.add_row("guard", Text(_guarded(guard), "yellow"))
    if scaler := summary.get("scaler"):
        style = "yellow" if scaler["overflows"] else ""
        table.add_row("loss scale", Text(_scaled(scaler), style))
    status, seconds = str(summary.get("status", "ended")), summary.get("seconds")
    minutes = f" ({clock(seconds)})" if is_number(seconds) and seconds >= 100 else ""
    line = f": {count(summary.get('steps'), 'step')}, {count(summary.get('epochs'), 'epoch')}"
    line += f", {number(seconds)} s{minutes}, {number(summary.get('steps_per_second'))} steps/s"
    line += f", seed {summary.get('seed', MISSING)}"
    table.add_row("run", Text.assemble((status, STATUS_STYLES.get(status, "bold red")), line))
    if summary.get("reason"):
        table.add_row("", Text(str(summary["reason"]), "yellow"))
    return table


def short(summary: Mapping[str, Any]) -> str:
    """A run in one line: how it ended, its objective, how long it took."""
    objective, seconds = summary.get("objective"), summary.get("seconds")
    reached = f"  {objective['tag']} {number(objective['value'])}" if objective else ""
    return f"{summary['status']}{reached}" + (f"  {number(seconds, 3)} s" if seconds else "")


def _clipping(clip: Mapping[str, Any]) -> str:
    limit, suggested = clip.get("max_norm"), clip.get("suggested_max_norm")
    at = f" at {limit:g}" if is_number(limit) else ""
    p90 = f" (p90 of the norms {number(suggested, 3)})" if is_number(suggested) else ""
    return f"{clip.get('mode')}{at} bound on {percent(clip.get('fraction'))} of steps{p90}"


def _scaled(scaler: Mapping[str, Any]) -> str:
    refused = count(scaler["overflows"], "update")
    return f"{number(scaler['scale'])} at the end, {refused} skipped because float16 overflowed"


def _guarded(guard: Mapping[str, Any]) -> str:
    skipped, rewound = guard.get("skipped", 0), guard.get("rewound", 0)
    line = f"{count(skipped, 'update')} skipped, {count(rewound, 'rewind')}"
    causes = [f"{cause} {n}" for cause, n in (guard.get("causes") or {}).items() if n]
    return f"{line} ({', '.join(causes)})" if causes else line

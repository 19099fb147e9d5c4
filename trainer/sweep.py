"""What a sweep leaves behind: one table of its jobs, best first."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from trainer.closing import STATUS_STYLES
from trainer.text import number, typed


@dataclass(frozen=True, slots=True)
class SweptJob:
    """A finished job: its overrides as typed, its folder, its summary."""

    overrides: list[str]
    folder: Path
    summary: dict[str, Any]

    @property
    def badness(self) -> float:
        """The objective as a number that is smaller for a better job; inf where there is none."""
        objective = self.summary["objective"]
        value = objective["value"]
        if value is None or math.isnan(value):
            return math.inf
        return -value if objective["higher_is_better"] else float(value)


def print_sweep(jobs: Sequence[SweptJob], folder: Path) -> None:
    """Prints job, objective, status and what the jobs differ in, and the command that compares them."""
    if not jobs:
        return
    out = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    common = set.intersection(*(set(job.overrides) for job in jobs))
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("job", justify="right")
    table.add_column(jobs[0].summary["objective"]["tag"], justify="right")
    for heading in ("", "differs in"):
        table.add_column(heading)
    for job in sorted(jobs, key=lambda job: job.badness):
        status = job.summary["status"]
        differs = " ".join(item for item in job.overrides if item not in common)
        value = number(job.summary["objective"]["value"])
        table.add_row(
            job.folder.name, value, Text(status, STATUS_STYLES.get(status, "bold red")), differs
        )
    out.print("", table, "", sep="\n")
    out.print(Text(f"tensorboard --logdir {typed(folder)}", "bold"), soft_wrap=True)

"""Whether a training does what it says, on a few samples: ``python train.py task=verify``."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from trainer import checks, diagnostics
from trainer.console import Console
from trainer.data.tensors import Batch, each
from trainer.diagnostics import Check, Failure
from trainer.record import finite
from trainer.tasks.train import Job, header
from trainer.wording import MISSING, number, typed

STYLES = {"pass": "green", "FAIL": "bold red", "not made": "yellow"}


class Verify:
    """Runs every check of `trainer.diagnostics` on the parts of a job; trains and changes nothing.

    Args:
        samples: of the first training batch that the checks look at; >= 2.
        coordinates: entries of each tensor whose gradient is checked, beside a direction; >= 1.
        tolerance: on the relative error of a gradient; > 0.

    Raises:
        ValueError: for an argument out of range.
    """

    def __init__(self, samples: int = 4, coordinates: int = 2, tolerance: float = 1e-5) -> None:
        self.samples = checks.whole("samples", samples, at_least=2)
        self.coordinates = checks.whole("coordinates", coordinates, at_least=1)
        self.tolerance = checks.number("tolerance", tolerance, above=0)

    def run(self, job: Job, folder: Path, console: Console) -> dict[str, Any]:
        """Shows a table, leaves it in ``folder/verify.json``, and returns a short summary; its status is
        "failed" if a check fails."""
        began = time.perf_counter()
        console.show(heading(job), brief="")
        done = list(self.checks(job))
        failed = [check.name for check in done if not check.passed]
        reason = f"{len(failed)} of {len(done)} checks failed: {', '.join(failed)}" if failed else ""
        summary = {
            "status": "failed" if failed else "completed",
            "reason": reason,
            "step": job.trainer.step,
            "seconds": time.perf_counter() - began,
            "objective": None,
        }
        path = folder / "verify.json"
        content = summary | {"choices": job.choices, "checks": [check.as_dict() for check in done]}
        path.write_text(json.dumps(finite(content), indent=2) + "\n", encoding="utf-8")
        closing = Text(reason or f"{len(done)} checks passed", "bold red" if failed else "bold green")
        closing.append(f", {summary['seconds']:.1f} s, {typed(path)}", "not bold default")
        console.show(_table(done), *_remarks(done), closing, brief=closing.plain)
        return summary

    def checks(self, job: Job) -> Iterator[Check]:
        """One check after the other; what raises has failed."""
        trainer = job.trainer
        model, loss, optimizer = trainer.model, trainer.loss, trainer.optimizer
        if not model.training:
            model.train()
        batch = self._batch(job)
        parts = (model, loss, optimizer, batch)
        as_trained: dict[str, Any] = {"clip": trainer.clip, "precision": trainer.precision.name}
        fineness: dict[str, Any] = {"coordinates": self.coordinates, "tolerance": self.tolerance}
        every: dict[str, Callable[[], Check]] = {
            "purity": lambda: diagnostics.check_purity(model, loss, batch),
            "determinism": lambda: diagnostics.check_determinism(*parts, **as_trained),
            "gradients": lambda: diagnostics.check_gradients(model, loss, batch, **fineness),
            "coverage": lambda: diagnostics.check_coverage(*parts),
            "updates": lambda: diagnostics.check_updates(*parts),
            "accumulation": lambda: diagnostics.check_accumulation(*parts, clip=trainer.clip),
            "resume": lambda: diagnostics.check_resume(*parts, scheduler=trainer.schedule, **as_trained),
            "extremes": lambda: diagnostics.check_extremes(model, loss, batch),
        }
        for name, check in every.items():
            try:
                yield check()
            except Exception as error:  # whatever a user's part raises
                yield Check(name, failures=(_raised(error),))

    def _batch(self, job: Job) -> Batch:
        """The first samples of the first training batch, in memory of their own."""
        trainer = job.trainer
        data = job.data.to(trainer.device, trainer.precision.dtype)
        rows = itemgetter(slice(self.samples))
        inputs, targets = next(data.batches(0))
        return each(rows, inputs).clone(), each(lambda tensor: rows(tensor).clone(), targets)


def _raised(error: Exception) -> Failure:
    """What raised, and where: the innermost line that is neither of this package nor of torch."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if str(Path(__file__).parent) not in frame.filename]
    theirs = [frame for frame in theirs if f"{os.sep}torch{os.sep}" not in frame.filename] or frames[-1:]
    place = f"{typed(Path(theirs[-1].filename))}:{theirs[-1].lineno}"
    message = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return Failure(place, message, "an outcome", f"raised in {theirs[-1].name}")


def _table(done: Sequence[Check]) -> Table:
    """A line for each check: verdict, worst figure, what it has to stay below, what was looked at."""
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False, header_style="dim")
    for heading, justify in (("check", "left"), ("", "left"), ("worst", "right"), ("limit", "right")):
        table.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    table.add_column("")
    for check in done:
        verdict = Text(check.verdict, STYLES[check.verdict])
        limit = MISSING if check.limit is None else f"{check.limit:g}"
        whole = isinstance(check.worst, int) or check.worst == 0
        figure = f"{check.worst:.0f}" if whole else number(check.worst, 3)
        looked_at = check.skipped or check.looked_at
        table.add_row(check.name, verdict, figure, limit, Text(looked_at, "dim"))
    return table


def heading(job: Job) -> Text:
    """What a job is about."""
    first, *others = header(job)
    return Text("\n", no_wrap=True, overflow="ignore").join([Text(first, "bold"), *map(Text, others)])


def _remarks(done: Sequence[Check]) -> list[Text]:
    """What failed and where, then what is to be known beside."""
    lines: list[Text] = []
    for check in done:
        for failure in check.failures:
            head = Text.assemble((f"{check.name}  ", "bold red"), (failure.place, "bold"))
            told = f"\n  {failure.got}, not {failure.expected}\n  {failure.cause}"
            lines.append(head.append(told, "not bold default"))
    lines += [Text(f"{check.name}: {note}", "dim") for check in done for note in check.notes]
    for line in lines:
        line.no_wrap, line.overflow = True, "ignore"
    return lines

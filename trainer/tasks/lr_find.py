"""Which learning rate to train with: ``python train.py task=lr_find``."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any

from rich.text import Text

from trainer.console import Console
from trainer.data.tensors import Batch, Data
from trainer.diagnostics import Rates, find_rate
from trainer.diagnostics.rates import check_range
from trainer.pictures.drawing import BLUE, INK, ORANGE, STYLE
from trainer.record import finite
from trainer.tasks.train import Job
from trainer.tasks.verify import heading
from trainer.wording import typed


class LrFind:
    """Runs a learning rate range test on the parts of a job, see `trainer.diagnostics.find_rate`.

    Args:
        min_lr: the first rate, > 0.
        max_lr: the last, > min_lr.
        steps: optimizer steps in between, >= 10.

    Raises:
        ValueError: for an argument out of range.
    """

    def __init__(self, min_lr: float = 1e-6, max_lr: float = 10.0, steps: int = 150) -> None:
        check_range(min_lr, max_lr, steps)
        self.min_lr, self.max_lr, self.steps = min_lr, max_lr, steps

    def run(self, job: Job, folder: Path, console: Console) -> dict[str, Any]:
        """Prints a rate to type, leaves ``lr_find.json`` and ``lr_find.png`` in the folder, returns a
        short summary; its status is "failed" if no rate lowers the loss."""
        began, trainer = time.perf_counter(), job.trainer
        console.show(heading(job), brief="")
        if not trainer.model.training:
            trainer.model.train()
        data = job.data.to(trainer.device, trainer.precision.dtype)
        rates = find_rate(
            trainer.forward,
            trainer.loss,
            trainer.optimizer,
            _endless(data),
            clip=trainer.clip,
            min_lr=self.min_lr,
            max_lr=self.max_lr,
            steps=self.steps,
            accumulate=trainer.accumulate,
            precision=trainer.precision.name,
            seed=trainer.seed,
        )
        group = trainer.optimizer.param_groups[0]
        present = group.get("initial_lr", group["lr"])
        found = rates.suggested is not None
        reason = "" if found else "no rate in this range lowered the loss"
        summary = {
            "status": "completed" if found else "failed",
            "reason": reason,
            "step": trainer.step,
            "seconds": time.perf_counter() - began,
            "objective": None,
        }
        content = finite(summary | {"choices": job.choices, "lr": present} | asdict(rates))
        path = folder / "lr_find.json"
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        lines = [Text(f"{len(rates.lrs)} steps, {summary['seconds']:.1f} s: {rates.ended}")]
        try:
            draw_rates(rates, present, folder / "lr_find.png")
            lines.append(Text(f"curve       {typed(folder / 'lr_find.png')}"))
        except OSError as error:
            lines.append(Text(f"lr_find.png is not drawn: {error}", "yellow"))
        answer = f"optimizer.lr={rates.suggested:g}" if found else reason
        closing = Text(answer, "bold green" if found else "bold red")
        if found:
            closing.append(f"  (it is {present:g})", "not bold default")
        console.show(Text("\n").join([*lines, closing]), brief=answer)
        return summary


def draw_rates(rates: Rates, present: float, path: Path) -> None:
    """Draws the losses over the rates, and where the suggestion and the present rate are.

    Args:
        rates: the test.
        present: the rate that is configured.
        path: of the PNG.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(8.0, 4.0), dpi=110, layout="constrained")
        axes = figure.add_subplot()
        axes.plot(rates.lrs, rates.losses, ".", color=BLUE, ms=4, alpha=0.35, label="loss of a batch")
        axes.plot(rates.lrs, rates.smoothed, color=BLUE, lw=1.6, label="smoothed")
        axes.axvline(present, color=INK, ls=":", lw=1.0, label=f"configured, {present:g}")
        if rates.suggested is not None:
            axes.axvline(rates.suggested, color=ORANGE, lw=1.4, label=f"suggested, {rates.suggested:g}")
        axes.set(xscale="log", xlabel="learning rate", ylim=_limits(rates))
        axes.set_title("Loss while the learning rate grows", pad=20)
        axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 0.99), ncols=4, borderaxespad=0.0)
        figure.savefig(path)


def _limits(rates: Rates) -> tuple[float, float]:
    """Of the y axis: what comes before the minimum fills it, the rise at the end may leave it."""
    lowest = rates.smoothed.index(min(rates.smoothed))
    before = rates.smoothed[: lowest + 1] + rates.losses[: lowest + 1]
    low, high = min(before), max(before)
    room = 0.1 * (high - low) or 1e-3 * abs(high) or 1.0
    return low - room, high + 3 * room


def _endless(data: Data) -> Iterator[Batch]:
    """One epoch after the other."""
    return (batch for epoch in count() for batch in data.batches(epoch))

"""What `benchmarks.guard` and `benchmarks.diagnostics` train, and how they time it."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from benchmarks.jobs import JOBS, NORM, RATE
from benchmarks.tables import Part, timed
from benchmarks.timing import Bar, Entry, attempt, interleave
from trainer.clipping import ClipByNorm
from trainer.loop import Trainer

PROBLEMS = ("mlp", "unet")  # of the jobs; a step of the third is too long to see a difference in
TURN = 100  # steps: a whole number of the intervals at which snapshots and samples are taken


class Lasting:
    """A training that goes on: each call takes so many steps more and returns the seconds of CPU that
    they took. So a turn may be short, and there may be many, which a busy machine disturbs less.

    Args:
        problem: one of `PROBLEMS`.
        parts: of the `Trainer`.
    """

    def __init__(self, problem: str, **parts: Any) -> None:
        job = JOBS[problem]
        model, self.data = job.network(), job.data()
        self.trainer = Trainer(
            model,
            job.criterion,
            torch.optim.Adam(model.parameters(), RATE, fused=True),
            clip=ClipByNorm(NORM),
            max_epochs=10**6,  # each call says how many steps
            device="cpu",
            **parts,
        )

    def __call__(self, steps: int) -> float:
        last = self.trainer.step + steps
        self.trainer.limits = (None, last)
        start = time.process_time()
        outcome = self.trainer.fit(self.data)
        taken = time.process_time() - start
        if (outcome["status"], outcome["steps"], outcome["guard"]["skipped"]) != ("completed", last, 0):
            raise RuntimeError(f"it did not train as planned: {outcome}")
        return taken


def overheads(
    part: str, choices: Mapping[str, Callable[[], Any]], limits: Mapping[str, float], seconds: float
) -> Iterator[Part]:
    """What each choice of a part costs in a step of each problem.

    Args:
        part: an argument of `Trainer`.
        choices: makes it; the first is what the others are compared to.
        limits: of the ratios to the first.
        seconds: for each problem, about.
    """
    torch.set_num_threads(1)
    for problem in PROBLEMS:
        entries = [Entry(name, Lasting(problem, **{part: make()})) for name, make in choices.items()]
        for entry in entries:
            entry.amount = TURN
            attempt(entry, TURN)  # warms up
        rounds = max(3, round(seconds / sum(attempt(entry, TURN) or seconds for entry in entries)))
        interleave(entries, rounds)
        first = entries[0].name
        bars = [Bar(f"{name} / {first}", limit, at_least=False) for name, limit in limits.items()]
        yield timed(f"Step of {JOBS[problem].title} by {part}", entries, "µs", 1e6, bars)

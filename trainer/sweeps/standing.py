"""Where the jobs of a sweep stand while it runs."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.cells import cell_len

from trainer.sweeps.comparison import settings
from trainer.sweeps.jobs import SweptJob
from trainer.sweeps.pulse import Mark


class Standing:
    """Which jobs wait, run and have ended, and what they have reached.

    Args:
        overrides: of all jobs, by number.
        folders: of all jobs.

    Attributes:
        settings: what each job has for the keys that not all have alike, as typed.
        keys: these keys, each with the width of its widest value.
        waiting: those that have not started.
        running: those that have, with the last that was heard of them; None before the first.
        ended: those that have, in that order.
        kept: those that had ended before.
        signal: that ends the sweep before its end, where one does.
    """

    def __init__(self, overrides: Mapping[int, Sequence[str]], folders: Mapping[int, Path]) -> None:
        self.overrides, self.folders = overrides, folders
        self.settings = dict(zip(overrides, settings(list(overrides.values())), strict=True))
        self.keys: dict[str, int] = {}
        for own in self.settings.values():
            for key, value in own.items():
                self.keys[key] = max(self.keys.get(key, 0), cell_len(value))
        self.waiting = set(overrides)
        self.running: dict[int, Mark | None] = {}
        self.ended: dict[int, SweptJob] = {}
        self.kept: set[int] = set()
        self.signal: int | None = None
        self.began = time.monotonic()

    def start(self, numbers: Sequence[int]) -> None:
        """A process has begun with these."""
        for number in numbers:
            self.waiting.discard(number)
            self.running[number] = None

    def wait(self, numbers: Sequence[int]) -> None:
        """These are to be started once more, each by itself."""
        for number in numbers:
            self.running.pop(number, None)
            self.waiting.add(number)

    def reach(self, marks: Mapping[int, Mark]) -> None:
        """These have come so far."""
        self.running.update({n: mark for n, mark in marks.items() if n in self.running})

    def end(self, number: int, summary: dict[str, Any], kept: bool = False) -> None:
        """This one has ended; ``kept`` if it had before."""
        self.waiting.discard(number)
        self.running.pop(number, None)
        self.ended[number] = SweptJob(list(self.overrides[number]), self.folders[number], summary)
        if kept:
            self.kept.add(number)

    def differs(self, number: int) -> str:
        """What a job does not share with all others, in a line."""
        return " ".join(f"{key}={value}" for key, value in self.settings[number].items())

    @property
    def counts(self) -> dict[str, int]:
        """How many jobs there are of each status, those without any left out."""
        ended = Counter(str(job.summary["status"]) for job in self.ended.values())
        known = ("completed", "diverged", "failed", "interrupted")
        counts = {status: ended[status] for status in known}
        counts |= {"running": len(self.running), "waiting": len(self.waiting)}
        return {status: number for status, number in counts.items() if number}

    @property
    def share(self) -> float:
        """Of the work of those that are not kept: how much is done, from 0 to 1."""
        jobs = len(self.overrides) - len(self.kept)
        begun = sum(mark.step / max(1, mark.total) for mark in self.running.values() if mark)
        return (len(self.ended) - len(self.kept) + begun) / jobs if jobs else 1.0

    @property
    def elapsed(self) -> float:
        """Seconds since the sweep began."""
        return time.monotonic() - self.began

    @property
    def left(self) -> float | None:
        """Seconds until its end if it goes on like this; None while that cannot be said."""
        share = self.share
        return self.elapsed * (1 - share) / share if share >= 0.02 and not self.signal else None

    @property
    def tag(self) -> str:
        """What the jobs are judged by; "" while none has said so."""
        marks = (mark.tag for mark in self.running.values() if mark)
        summaries = (job.summary["objective"] for job in self.ended.values())
        return next(marks, None) or next((found["tag"] for found in summaries if found), "")

    def ranked(self) -> list[tuple[int, Mark | None]]:
        """The running ones, the best so far first."""
        return sorted(self.running.items(), key=lambda item: badness(item[1]))

    def best(self) -> list[tuple[int, SweptJob]]:
        """The completed ones, the best first."""
        done = [(n, job) for n, job in self.ended.items() if job.summary["status"] == "completed"]
        return sorted(done, key=lambda item: item[1].badness)

    def leader(self) -> tuple[int, float] | None:
        """The job that is best at present, running or completed, and what it has reached."""
        found = [(badness(mark), n, mark.value) for n, mark in self.running.items() if mark]
        found += [(job.badness, n, job.value) for n, job in self.best()]
        measured = [(worse, n, value) for worse, n, value in found if value is not None]
        if not measured or math.isinf(min(measured)[0]):
            return None
        _, number, value = min(measured)
        return number, value


def badness(mark: Mark | None) -> float:
    """The value of a running job as a number that is smaller for a better one; inf without any."""
    if mark is None or mark.value is None or math.isnan(mark.value):
        return math.inf
    return -mark.value if mark.higher else mark.value

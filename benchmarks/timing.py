"""Paired timing and medians, shared by the benchmarks.

Absolute times on a shared machine drift by tens of percent within a minute, so every
comparison here is paired: the contenders take turns in short rounds, a ratio is formed within
each round between neighbours in time, and the median of those ratios is reported. A slow
minute then slows both sides of a ratio and mostly cancels.
"""

import gc
import os
import statistics
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path


class NotInstalled(Exception):
    """Raised by a contender that needs a package this environment lacks."""


@dataclass
class Entry:
    """One contender: `measure(amount)` does that much work and returns the seconds it took."""

    name: str
    measure: Callable[[int], float]
    amount: int = 1
    seconds: list[float] = field(default_factory=list)
    missing: str = ""
    crash: str = ""

    @property
    def running(self) -> bool:
        """Whether the contender still takes part."""
        return not (self.missing or self.crash)

    @property
    def absent(self) -> str:
        """Why there are no figures of it."""
        return self.missing or f"crashed: {self.crash}"[:60]

    @property
    def rates(self) -> list[float]:
        """Work per second, one figure for each round."""
        return [self.amount / seconds for seconds in self.seconds]


@dataclass
class Bar:
    """A limit on a median ratio: at least `limit`, or at most when `at_least` is false."""

    label: str
    limit: float
    at_least: bool = True

    def met(self, value: float) -> bool:
        """Whether `value` is on the right side of the limit."""
        return value >= self.limit if self.at_least else value <= self.limit

    def row(self, value: float | None, why: str = "not measured") -> list[str]:
        """The table row that sets the bar beside what was measured, or says why nothing was."""
        sign = "≥" if self.at_least else "≤"
        wanted = f"{sign} {self.limit:g}x"
        if value is None:
            return [self.label, wanted, why, "-"]
        return [self.label, wanted, f"{value:.2f}x", "pass" if self.met(value) else "FAIL"]


def attempt(entry: Entry, amount: int) -> float | None:
    """Measure one contender once; a failure is noted on the entry, which then sits out."""
    gc.collect()
    try:
        return entry.measure(amount)
    except NotInstalled as reason:
        entry.missing = str(reason)
    except Exception as error:
        entry.crash = f"{type(error).__name__}: {error}"
        traceback.print_exc()
    return None


def command_seconds(arguments: Sequence[str], folder: Path) -> float:
    """Seconds that Python takes with these arguments, run in the folder, from start to exit.

    Raises:
        RuntimeError: with the end of what it said, if it fails.
    """
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:] or done.stdout[-2000:])
    return seconds


def calibrate(entry: Entry, seconds: float, first: int = 4) -> None:
    """Warm a contender up, then choose the amount of work that fills about `seconds`."""
    entry.amount = first
    while (taken := attempt(entry, entry.amount)) is not None:
        wanted = max(1, round(entry.amount * seconds / taken))
        enough, entry.amount = taken > seconds / 4, min(wanted, 8 * entry.amount)
        if enough:
            return


def interleave(entries: Sequence[Entry], rounds: int) -> None:
    """Run the contenders in turn, A B C C B A …, so that a machine that slows down favours none; a
    round one of them fails ends its part."""
    for number in range(rounds):
        for entry in entries[:: -1 if number % 2 else 1]:
            taken = attempt(entry, entry.amount) if entry.running else None
            if taken is not None:
                entry.seconds.append(taken)


def median_ratio(over: Sequence[float], under: Sequence[float]) -> float | None:
    """Median of `over / under` formed pair by pair; None when either side has no rounds."""
    ratios = [a / b for a, b in zip(over, under, strict=False)]
    return statistics.median(ratios) if ratios else None


def spread(values: Sequence[float], form: str) -> str:
    """Median with its range, such as `1200 (1100 to 1300)`."""
    low, middle, high = (format(f(values), form) for f in (min, statistics.median, max))
    return f"{middle} ({low} to {high})"

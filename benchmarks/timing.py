"""Paired timing, medians and plain tables, shared by the benchmarks.

Absolute times on a shared machine drift by tens of percent within a minute, so every
comparison here is paired: the contenders take turns in short rounds, a ratio is formed within
each round between neighbours in time, and the median of those ratios is reported. A slow
minute then slows both sides of a ratio and mostly cancels.
"""

import gc
import statistics
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field


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

    def row(self, value: float | None) -> list[str]:
        """The table row that sets the bar beside what was measured."""
        sign = "≥" if self.at_least else "≤"
        wanted = f"{sign} {self.limit:g}x"
        if value is None:
            return [self.label, wanted, "not measured", "-"]
        return [self.label, wanted, f"{value:.2f}x", "pass" if self.met(value) else "FAIL"]

    def figures(self, value: float | None) -> dict:
        """The same row for a JSON report."""
        passed = None if value is None else self.met(value)
        return {"limit": self.limit, "at_least": self.at_least, "measured": value, "pass": passed}


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


def calibrate(entry: Entry, seconds: float, first: int = 320) -> None:
    """Warm a contender up, then choose the amount of work that fills about `seconds`."""
    for amount in (first, 4 * first):
        taken = attempt(entry, amount)
        if taken is None:
            return
    entry.amount = max(1, round(amount * seconds / taken))


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


def summary(values: Sequence[float]) -> dict:
    """Median, range and the single values, for a JSON report."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "values": list(values),
    }


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align rows under a header: the first column to the left, the others to the right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def compare(title: str, entries: list[Entry], bars: dict[str, Bar], rounds: int) -> list[list[str]]:
    """Measures, prints a table of seconds per unit of work, and returns the rows of the bars. The first
    entry is the one that the others are compared to."""
    interleave(entries, rounds)
    show(title, entries, "µs", 1e6, ".0f")
    base = entries[0]
    return [bars[e.name].row(median_ratio(base.rates, e.rates)) for e in entries if e.name in bars]


def show(title: str, entries: Sequence[Entry], unit: str, per_second: float, form: str) -> None:
    """Prints the time that each took for a unit of work, and its ratio to that of the first."""
    rows, base = [], entries[0]
    for entry in entries:
        each = [per_second * seconds / entry.amount for seconds in entry.seconds]
        ratio = median_ratio(base.rates, entry.rates) if each else None
        rows.append([entry.name, spread(each, form) if each else entry.crash[:60], f"{ratio or 0:.3f}x"])
    print(table([title, unit, f"to {base.name}"], rows) + "\n")

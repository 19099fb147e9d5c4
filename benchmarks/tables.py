"""What the benchmarks have found, as plain tables for the screen and in Markdown for the page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from benchmarks.timing import Bar, Entry, median_ratio, spread

BAR_HEADER = ("ratio", "wanted", "measured", "")


@dataclass
class Part:
    """What one benchmark has found: a table of what everyone took, and the bars.

    Attributes:
        title: what was measured, and in what.
        header: of the table.
        rows: of the table, as many cells each as the header has.
        bars: rows of `Bar.row`.
        crashed: whether a contender did.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    bars: list[list[str]] = field(default_factory=list)
    crashed: bool = False

    def __str__(self) -> str:
        shown = [self.title, "", aligned(self.header, self.rows)]
        return "\n".join([*shown, "", aligned(BAR_HEADER, self.bars)] if self.bars else shown) + "\n"

    def markdown(self) -> str:
        """A heading and both tables."""
        tables = [(self.header, self.rows)] + ([(BAR_HEADER, self.bars)] if self.bars else [])
        return "\n\n".join([f"## {self.title}", *(in_markdown(*one) for one in tables)]) + "\n"


def timed(
    title: str, entries: Sequence[Entry], unit: str, per_second: float, bars: Iterable[Bar] = ()
) -> Part:
    """The time that each took for a unit of work, and its ratio to that of the first.

    Args:
        title: of the part.
        entries: that have taken their turns.
        unit: of time.
        per_second: so many of these units are a second.
        bars: on ratios of time, labelled ``slow / fast`` with the names of two entries.
    """
    rows, base = [], entries[0]
    for entry in entries:
        each = [per_second * seconds / entry.amount for seconds in entry.seconds]
        ratio = median_ratio(base.rates, entry.rates)
        shown = "-" if ratio is None else f"{ratio:.2f}x"
        form = ".0f" if each and min(each) >= 100 else ".3g"
        rows.append([entry.name, spread(each, form) if each else entry.absent, shown])
    named = {entry.name: entry for entry in entries}
    judged = []
    for bar in bars:
        over, under = (named[name] for name in bar.label.split(" / "))
        judged.append(bar.row(median_ratio(under.rates, over.rates), over.absent))
    crashed = any(entry.crash for entry in entries)
    return Part(title, ("contender", unit, f"to {base.name}"), rows, judged, crashed)


def shown(parts: Iterable[Part]) -> int:
    """Prints each part as it comes; the exit status is 1 only when something crashed."""
    crashed = False
    for part in parts:
        print(part, flush=True)
        crashed |= part.crashed
    return int(crashed)


def aligned(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows under a header: the first column to the left, the others to the right."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def in_markdown(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """The same as a table in Markdown."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    lines = [[cell.replace("|", r"\|") for cell in line] for line in (header, rule, *rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)

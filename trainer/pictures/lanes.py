"""The axis of one swept key: a scale for numbers, places side by side for anything else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from trainer.pictures.drawing import plain
from trainer.sweeps.comparison import numbers_of
from trainer.sweeps.marginals import MOST_VALUES
from trainer.wording import MISSING

LONGEST = 20  # letters of a label
GOLDEN = (5**0.5 - 1) / 2  # whose multiples spread evenly, neighbours apart
ASIDE = 0.36  # of the way to the next value


class Lane:
    """Where the values of a key stand between 0 and 1.

    Numbers stand on a scale, a logarithmic one where they span a decade; a few that would crowd on it,
    and whatever is no number, stand at equal distances.

    Args:
        key: what was swept.
        settings: of each job, with its value as typed; jobs may lack it.
    """

    def __init__(self, key: str, settings: Sequence[dict[str, str]]) -> None:
        self.key = key
        self.typed = [one.get(key, MISSING) for one in settings]
        self.numbers = numbers_of(settings, key)
        self.levels = list(dict.fromkeys(self.typed))
        if self.numbers:
            self.levels.sort(key=float)
        self.few = len(self.levels) <= MOST_VALUES
        self.log = bool(self.numbers) and 0 < 10 * self.numbers[0] <= self.numbers[-1]
        even = 1 / len(self.levels)
        self.places = {level: (index + 0.5) * even for index, level in enumerate(self.levels)}
        if len(self.numbers) > 1:
            scaled = {level: self.scaled(float(level)) for level in self.levels}
            gap = min((b - a for a, b in pairwise(map(self.scaled, self.numbers))), default=0.0)
            if not self.few or gap > 0.4 * even:
                self.places = scaled
        found = sorted(set(self.places.values()))
        self.gap = min((b - a for a, b in pairwise(found)), default=0.5) if self.few else 0.0

    def scaled(self, number: float) -> float:
        """Where a number stands on the scale."""
        first, last, own = (
            math.log10(value) if self.log else value
            for value in (self.numbers[0], self.numbers[-1], number)
        )
        edge = 0.5 / min(len(self.levels), 8)
        return edge + (1 - 2 * edge) * (own - first) / (last - first)

    def spread(self, ranks: Sequence[int], scattered: bool = False) -> list[float]:
        """Where each job stands: those with the same value a little aside of each other, by rank, or
        scattered."""
        own: dict[str, list[int]] = {}
        for rank, typed in sorted(zip(ranks, self.typed, strict=True)):
            own.setdefault(typed, []).append(rank)
        places = []
        for rank, typed in zip(ranks, self.typed, strict=True):
            row = own[typed]
            share = row.index(rank) / (len(row) - 1) - 0.5 if len(row) > 1 else 0.0
            if scattered and len(row) > 1:
                share = 0.7 * (GOLDEN * row.index(rank) % 1 - 0.5)
            room = 2 * ASIDE * min(self.gap, 0.25) * min(1.0, len(row) / 6)
            places.append(self.places[typed] + share * room)
        return places

    def ticks(self) -> tuple[list[float], list[str]]:
        """Where ticks go, and what they say."""
        if self.few:
            return list(self.places.values()), [_short(level) for level in self.levels]
        from matplotlib.ticker import LogLocator, MaxNLocator

        low, high = self.numbers[0], self.numbers[-1]
        locator = LogLocator(numticks=6) if self.log and high > 100 * low else MaxNLocator(5)
        shown = [value for value in locator.tick_values(low, high) if low <= value <= high]
        return [self.scaled(value) for value in shown], [plain(value, 0) for value in shown]


def _short(level: str) -> str:
    return level if len(level) <= LONGEST else level[: LONGEST - 1] + "…"

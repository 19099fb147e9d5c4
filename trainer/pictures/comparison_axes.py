"""What the pictures of a comparison have in common: axes with room for the runs that diverged."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from trainer.pictures.drawing import INK, WIDTH, plain, ticks
from trainer.sweeps.comparison import Variant

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

HEAD, FOOT, EDGE, LETTER = 0.85, 0.5, 0.25, 0.068  # inches
GREY, FAINT = "#777777", "#DDDDDD"


class Scale:
    """Limits and kind of an axis that holds some values, with a margin at its worse end for the runs
    that have none.

    Args:
        values: what has to fit on it.
        margin: as a share of the whole; 0 for none.
        at_low_end: whether the margin is there.
        may_be_log: whether it is logarithmic where the values span more than a factor of 20: losses and
            norms, but no decibels and no shares.
    """

    def __init__(
        self,
        values: Iterable[float],
        margin: float = 0.0,
        at_low_end: bool = True,
        may_be_log: bool = True,
    ) -> None:
        finite = [value for value in values if math.isfinite(value)]
        spans = may_be_log and bool(finite) and 0 < 20 * min(finite) < max(finite)
        self.kind = "log" if spans else "linear"
        low, high = (self._into(bound(finite, default=0.0)) for bound in (min, max))
        room = (high - low) or abs(high) / 100 or 1.0
        low, high = low - 0.06 * room, high + 0.06 * room
        room = (high - low) * margin / (1 - margin)
        self.at_low_end, self.margin = at_low_end, margin
        ends = (low - room, low, high) if at_low_end else (low, high, high + room)
        first, middle, last = map(self._out, ends)
        self.limits = first, last
        self.lost, self.held = ((first, middle), (middle, last))[:: 1 if at_low_end else -1]

    def place(self, share: float) -> float:
        """Where in the margin, as a share of the whole axis: 0 is its outer end."""
        return share * self.margin if self.at_low_end else 1 - share * self.margin

    def shares(self, values: Sequence[float], ranks: Sequence[int]) -> list[float]:
        """Where values stand, as shares of the whole axis; those without one in the margin, by rank."""
        low, high = map(self._into, self.limits)
        lost = sorted(rank for value, rank in zip(values, ranks, strict=True) if math.isnan(value))
        places = []
        for value, rank in zip(values, ranks, strict=True):
            if math.isnan(value):
                places.append(self.place((lost.index(rank) + 1) / (len(lost) + 1)))
            else:
                places.append((self._into(value) - low) / (high - low))
        return places

    @property
    def decades(self) -> float:
        """Decades that it spans; 0 for a linear one."""
        return math.log10(self.limits[1] / self.limits[0]) if self.kind == "log" else 0.0

    def tick(self, axis: Axis) -> None:
        """Ticks where there are values, none in the margin."""
        ticks(axis, self.decades)
        low, high = self.held
        axis.set_ticks([tick for tick in axis.get_ticklocs() if low <= tick <= high])
        axis.set_major_formatter(plain)

    def _into(self, value: float) -> float:
        return math.log10(value) if self.kind == "log" else value

    def _out(self, value: float) -> float:
        return 10**value if self.kind == "log" else value


class Swept:
    """The x axis: a number that was swept, logarithmic where it spans a decade.

    Args:
        key: what was swept.
        variants: its values, among other things.
    """

    def __init__(self, key: str, variants: Sequence[Variant]) -> None:
        self.key = key
        self.ordered = sorted(variants, key=lambda variant: float(variant.settings[key]))
        self.values = sorted({float(variant.settings[key]) for variant in variants})
        self.log = 0 < 10 * self.values[0] <= self.values[-1]
        places = [self._into(value) for value in self.values]
        self.gap = min(b - a for a, b in pairwise(places))

    def place(self, variant: Variant, index: int, of: int) -> float:
        """Where a point of line ``index`` goes: a little aside, so that bars do not cover each other."""
        aside = 0.07 * self.gap * (index - (of - 1) / 2)
        place = self._into(float(variant.settings[self.key])) + aside
        return 10**place if self.log else place

    def finish(self, axes: Axes, labelled: bool) -> None:
        """Scale, ticks and the name, unless another axis below has them."""
        axes.set_xscale("log" if self.log else "linear")
        labels = [plain(value, 0) if labelled else "" for value in self.values]
        axes.set_xticks(self.values, labels)
        axes.set_xticks([], minor=True)
        first, last = self._into(self.values[0]), self._into(self.values[-1])
        first, last = first - 0.35 * self.gap, last + 0.35 * self.gap
        axes.set_xlim(*((10**first, 10**last) if self.log else (first, last)))
        axes.set_xlabel(self.key if labelled else "")
        axes.grid(axis="y", color=FAINT, lw=0.6)
        axes.set_axisbelow(True)

    def _into(self, value: float) -> float:
        return math.log10(value) if self.log else value


def head(figure: Figure, title: str, note: str) -> None:
    """The title line of a picture, and on its right how to read it."""
    y = 1 - 0.28 / figure.get_figheight()
    figure.text(EDGE / WIDTH, y, title, size=12, weight="bold", color=INK)
    figure.text(1 - EDGE / WIDTH, y, note, size=8.5, ha="right", color=GREY)


def label(variant: Variant, keys: Iterable[str]) -> str:
    """What it has for these keys, as typed."""
    return " ".join(f"{key}={variant.settings[key]}" for key in keys if key in variant.settings)


def ends(variant: Variant) -> list[float]:
    """How far the objective of a variant reaches, and its bar."""
    if variant.mean is None:
        return []
    bar = variant.deviation or 0.0
    return [variant.mean - bar, variant.mean + bar]

"""What each swept key does, whatever the others are: its marginal effect."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from trainer.sweeps.comparison import Result, Variant, grouped, numbers_of, settings_of, with_result
from trainer.wording import number

MOST_VALUES, RANGES = 16, 6


@dataclass(frozen=True, slots=True)
class Effect:
    """A swept key and what was reached with each of its values, over all values of the others.

    Attributes:
        key: what was swept.
        levels: a variant for each value, numbers rising, else in the order of the sweep. Of a number
            with more than 16 values, as a search draws them, one for each of six ranges with as many
            jobs in each.
        numeric: whether each level stands for one number.
    """

    key: str
    levels: list[Variant]
    numeric: bool


def effects(jobs: Sequence[Result]) -> list[Effect]:
    """The effect of every key that was swept, in the order of the sweep."""
    finished = with_result(jobs)
    settings = settings_of(finished)
    return [_effect(finished, key) for key in dict.fromkeys(key for one in settings for key in one)]


def _effect(jobs: Sequence[Result], key: str) -> Effect:
    levels = grouped(jobs, [key])
    numbers = numbers_of((level.settings for level in levels), key)
    if numbers:
        levels.sort(key=lambda level: float(level.settings[key]))
    if len(numbers) <= MOST_VALUES:
        return Effect(key, levels, bool(numbers))
    cuts = [round(len(levels) * part / RANGES) for part in range(RANGES + 1)]
    rows = [levels[first:last] for first, last in pairwise(cuts)]
    return Effect(key, [_joined(key, row) for row in rows], False)


def _joined(key: str, levels: Sequence[Variant]) -> Variant:
    """The levels as one, named by the range they span."""
    first, last = (number(float(level.settings[key]), 3) for level in (levels[0], levels[-1]))
    joined = Variant({key: f"{first} to {last}"})
    for level in levels:
        name = level.settings[key]
        for whole, part in ((joined.values, level.values), (joined.spikes, level.spikes)):
            whole.update({f"{name} {rest}": value for rest, value in part.items()})
        joined.diverged.extend(level.diverged)
    return joined

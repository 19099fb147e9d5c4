"""Where a sweep is stable: maps over two of its numbers, and how much the learning rate matters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

from trainer.sweeps.comparison import Result, Variant, grouped, numbers_of, settings_of, with_result

MOST_MAPS, MOST_ACROSS, LEAST_FILLED, LEAST_RATES = 4, 32, 0.5, 3


@dataclass(frozen=True, slots=True)
class Map:
    """The objective over two numbers that were swept.

    Attributes:
        x: the key across, a learning rate if one was swept.
        y: the key upwards.
        xs: values of x that occur, rising.
        ys: values of y that occur, rising.
        settings: what else the jobs of this map have that those of others have not.
        cells: what was reached at (x, y), over all seeds.
    """

    x: str
    y: str
    xs: list[float]
    ys: list[float]
    settings: dict[str, str]
    cells: dict[tuple[float, float], Variant]


@dataclass(frozen=True, slots=True)
class Rates:
    """What one setting of everything else reaches over the learning rates.

    Attributes:
        settings: of everything but the learning rate and the seed.
        losses: the last loss by learning rate, median over the seeds; inf where it diverged.
        initial: the loss that it began with; None where that was not recorded.
        quiet: the rates at which no run diverged, no loss spiked and no step was refused.
    """

    settings: dict[str, str]
    losses: dict[float, float]
    initial: float | None
    quiet: frozenset[float]

    @property
    def best(self) -> float:
        """The learning rate with the smallest loss."""
        return min(self.losses, key=lambda rate: self.losses[rate])

    @property
    def sensitivity(self) -> float | None:
        """Expected deviation from the optimum, E[min(ℓ(η), ℓ0) − min ℓ] over the learning rates η that
        were swept, each as likely as the others (arXiv 2309.14322); None without ℓ0."""
        if self.initial is None:
            return None
        capped = [min(loss, self.initial) for loss in self.losses.values()]
        return mean(capped) - min(capped)

    @property
    def stable(self) -> list[float]:
        """The row of neighbouring rates around the best that are quiet and come at least half of the way
        from the initial loss to the best; empty if the best itself is not quiet, or nothing is learned.
        A collapsed run, whose loss is finite but is that of a guess, is thus not called stable."""
        limit = math.inf if self.initial is None else (self.initial + self.losses[self.best]) / 2
        rows: list[list[float]] = [[]]
        for rate, loss in self.losses.items():
            if rate in self.quiet and loss < limit:
                rows[-1].append(rate)
            else:
                rows.append([])
        return next((row for row in rows if self.best in row), [])


def maps(jobs: Sequence[Result]) -> list[Map]:
    """A map for each combination of what else was swept; none where no two numbers were, where they are
    scattered instead of on a grid, or where there would be more than four."""
    finished = with_result(jobs)
    settings = settings_of(finished)
    keys = dict.fromkeys(key for one in settings for key in one if key != "seed")
    numbers = {key: numbers_of(settings, key) for key in keys}
    numeric = sorted((key for key in keys if numbers[key]), key=lambda key: -len(numbers[key]))
    if len(numeric) < 2:
        return []
    x = next(filter(is_rate, numeric), numeric[0])
    y = next(key for key in numeric if key != x)
    xs, ys = numbers[x], numbers[y]
    others: dict[str, list[Variant]] = {}
    for variant in grouped(finished, keys):
        rest = {key: value for key, value in variant.settings.items() if key not in (x, y)}
        others.setdefault(str(rest), []).append(variant)
    cells = sum(map(len, others.values())) / len(others)
    if len(others) > MOST_MAPS or max(len(xs), len(ys)) > MOST_ACROSS:
        return []
    if cells < LEAST_FILLED * len(xs) * len(ys):
        return []
    return [_map(x, y, xs, ys, variants) for variants in others.values()]


def _map(x: str, y: str, xs: list[float], ys: list[float], variants: Sequence[Variant]) -> Map:
    rest = {key: value for key, value in variants[0].settings.items() if key not in (x, y)}
    cells = {(float(one.settings[x]), float(one.settings[y])): one for one in variants}
    return Map(x, y, xs, ys, rest, cells)


def is_rate(key: str) -> bool:
    """Whether a key is a learning rate."""
    return key.rpartition(".")[2] == "lr"


def rates(jobs: Sequence[Result]) -> tuple[str, list[Rates]] | None:
    """The key of the learning rate that was swept, and what each setting of everything else reaches over
    it; None where none was swept over three values at least."""
    finished = [job for job in with_result(jobs) if _loss(job) is not None]
    settings = settings_of(finished)
    key = next((key for one in settings for key in one if is_rate(key)), "")
    if len(numbers_of(settings, key)) < LEAST_RATES:
        return None
    rows: dict[str, list[tuple[dict[str, str], Result]]] = {}
    for job, one in zip(finished, settings, strict=True):
        rest = {name: value for name, value in one.items() if name not in (key, "seed")}
        rows.setdefault(str(rest), []).append((one, job))
    found = [_rates(key, row) for row in rows.values()]
    return key, [one for one in found if len(one.losses) >= LEAST_RATES]


def _rates(key: str, row: Sequence[tuple[dict[str, str], Result]]) -> Rates:
    by_rate: dict[float, list[Result]] = {}
    for one, job in sorted(row, key=lambda pair: float(pair[0][key])):
        by_rate.setdefault(float(one[key]), []).append(job)
    losses = {rate: median(_loss(job) or 0.0 for job in jobs) for rate, jobs in by_rate.items()}
    first = [
        _figure(job.summary, "metrics", "train/loss", "first") for job in next(iter(by_rate.values()))
    ]
    began = [value for value in first if value is not None]
    settings = {name: value for name, value in row[0][0].items() if name not in (key, "seed")}
    quiet = frozenset(rate for rate, jobs in by_rate.items() if all(map(_was_quiet, jobs)))
    return Rates(settings, losses, median(began) if began else None, quiet)


def _loss(job: Result) -> float | None:
    """What a job ended with: its validation loss, or where nothing is validated that of the training."""
    if job.summary["status"] == "diverged":
        return math.inf
    value = _figure(job.summary, "metrics", "val/loss", "last")
    return _figure(job.summary, "metrics", "train/loss", "last") if value is None else value


def _was_quiet(job: Result) -> bool:
    upsets = (("spikes", "loss"), ("guard", "skipped"), ("guard", "rewound"))
    return job.summary["status"] == "completed" and not any(_figure(job.summary, *p) for p in upsets)


def _figure(summary: Mapping[str, Any], *path: str) -> float | None:
    value: Any = summary
    for name in path:
        value = (value or {}).get(name)
    found: float | None = value
    return found

"""Variants of a run over several seeds: what each reaches, and which differences are more than chance.

Jobs of a sweep that differ in nothing but ``seed=`` are one variant. Every variant had the same seeds,
and with them the same initial weights and the same batches in the same order; so variants are compared
seed by seed, which leaves out what the seeds differ in.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any, Protocol, TypeVar

from trainer.wording import typed_number

HELPS, HURTS, NOTHING = "helps", "hurts", "no difference seen"
SAME, OFTENER, RARER = "changes nothing", "diverges more", "diverges less"
SEVERAL = re.compile(r"\{[^{}\[\]:,]+:[^{}\[\]:,]+(,[^{}\[\]:,]+:[^{}\[\]:,]+)*\}")
# Student's t for 95 %, two-sided, by pairs - 1: two standard errors, and how many more few pairs need.
STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)


class Result(Protocol):
    """A finished job of a sweep; `trainer.sweeps.jobs.SweptJob` is one."""

    @property
    def overrides(self) -> list[str]: ...
    @property
    def summary(self) -> dict[str, Any]: ...
    @property
    def value(self) -> float | None: ...


class Entry(Result, Protocol):
    """One that has a folder and a rank."""

    @property
    def folder(self) -> Path: ...
    @property
    def badness(self) -> float: ...


Job = TypeVar("Job", bound=Result)


@dataclass(frozen=True, slots=True)
class Difference:
    """How much better than the reference, seed by seed; a minus is worse.

    Attributes:
        mean: of value − reference, turned so that more is better; None without a pair.
        error: standard error of that mean; None for fewer than two pairs.
        pairs: seeds that reached an end in both.
        verdict: in plain words; "" where nothing can be said.
    """

    mean: float | None
    error: float | None
    pairs: int
    verdict: str


@dataclass(frozen=True, slots=True)
class Variant:
    """The jobs with one setting.

    Attributes:
        settings: what it differs from other variants in, by key.
        values: the objective by seed, of the runs that reached an end.
        diverged: the seeds whose runs did not; they are in no mean.
        norms: the largest gradient norm of the committed steps, by seed.
        spikes: the share of committed steps whose loss stood out (`trainer.spikes.SpikeScore`), by seed.
        refused: the steps that the guard refused, by seed.
    """

    settings: dict[str, str]
    values: dict[str, float] = field(default_factory=dict)
    diverged: list[str] = field(default_factory=list)
    norms: dict[str, float] = field(default_factory=dict)
    spikes: dict[str, float] = field(default_factory=dict)
    refused: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What it differs in, as typed."""
        return " ".join(f"{key}={value}" for key, value in self.settings.items())

    @property
    def runs(self) -> int:
        """Runs with a result, diverged ones among them."""
        return len(self.values) + len(self.diverged)

    @property
    def mean(self) -> float | None:
        """Of the objective, over the runs that reached an end."""
        return mean(self.values.values()) if self.values else None

    @property
    def deviation(self) -> float | None:
        """The standard deviation over those runs; None for fewer than two."""
        return stdev(self.values.values()) if len(self.values) > 1 else None

    @property
    def middle(self) -> float | None:
        """The median of the objective, over the runs that reached an end."""
        return median(self.values.values()) if self.values else None

    @property
    def largest_norm(self) -> float | None:
        """The median over the runs."""
        return median(self.norms.values()) if self.norms else None

    @property
    def spiking(self) -> float | None:
        """The mean over the runs."""
        return mean(self.spikes.values()) if self.spikes else None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Variants of a run, in the order of the sweep; the first is the reference.

    Attributes:
        tag: what is compared, such as ``val/psnr``.
        higher_is_better: whether more of it is better.
        variants: all of them.
    """

    tag: str
    higher_is_better: bool
    variants: list[Variant]

    @property
    def best(self) -> Variant | None:
        """The one with the best mean; None where every run diverged."""
        ended = [variant for variant in self.variants if variant.values]
        sign = 1 if self.higher_is_better else -1
        return max(ended, key=lambda variant: sign * (variant.mean or 0.0), default=None)

    def difference(self, variant: Variant) -> Difference | None:
        """A variant against the reference; None for the reference itself.

        It helps or hurts where the mean of the paired differences is beyond Student's 95 % limit, about
        2 standard errors for many seeds and 4.3 for three: of twenty that do nothing, one is called so
        by chance. A variant with more or fewer diverged runs is told by that.
        """
        reference = self.variants[0]
        if variant is reference:
            return None
        sign = 1 if self.higher_is_better else -1
        seeds = [seed for seed in variant.values if seed in reference.values]
        gains = [sign * (variant.values[seed] - reference.values[seed]) for seed in seeds]
        error = stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else None
        verdict = _verdict(gains, error)
        if min(variant.runs, reference.runs) > 1:
            more = len(variant.diverged) / variant.runs - len(reference.diverged) / reference.runs
            verdict = OFTENER if more > 0 else RARER if more < 0 else verdict
        return Difference(mean(gains) if gains else None, error, len(gains), verdict)

    def rows(self) -> list[dict[str, Any]]:
        """All of it as plain values."""
        return [self._row(variant) for variant in self.variants]

    def _row(self, variant: Variant) -> dict[str, Any]:
        difference = self.difference(variant)
        told: dict[str, Any] = {
            "difference": None,
            "standard_error": None,
            "pairs": 0,
            "verdict": "reference",
        }
        if difference is not None:
            figures = (difference.mean, difference.error, difference.pairs, difference.verdict)
            told = dict(zip(told, figures, strict=True))
        return {
            "variant": variant.settings,
            "runs": variant.runs,
            "diverged": len(variant.diverged),
            "mean": variant.mean,
            "standard_deviation": variant.deviation,
            **told,
            "largest_norm": variant.largest_norm,
            "spikes": variant.spiking,
            "values": variant.values,
        }


def compare(jobs: Sequence[Result]) -> Comparison | None:
    """Groups the jobs of a sweep by everything but their seed.

    Jobs that failed or were interrupted have no result and are left out.

    Returns:
        None where no variant has two seeds.
    """
    finished = with_result(jobs)
    keys = dict.fromkeys(key for settings in settings_of(finished) for key in settings)
    variants = grouped(finished, [key for key in keys if key != "seed"])
    if not any(variant.runs > 1 for variant in variants):
        return None
    objective = finished[0].summary["objective"]
    return Comparison(objective["tag"], objective["higher_is_better"], variants)


def numbers_of(settings: Iterable[Mapping[str, str]], key: str) -> list[float]:
    """The values of a key in rising order, where all of them are numbers; else none."""
    values = [typed_number(one.get(key, "")) for one in settings]
    return sorted({value for value in values if value is not None}) if None not in values else []


def with_result(jobs: Sequence[Job]) -> list[Job]:
    """Those that reached an end or diverged, and were judged by it."""
    return [job for job in jobs if job.value is not None and job.summary["status"] in ENDED]


def settings_of(jobs: Sequence[Result]) -> list[dict[str, str]]:
    """What each job has for the keys that not all have alike, as typed."""
    return settings([job.overrides for job in jobs])


def settings(overrides: Sequence[Sequence[str]]) -> list[dict[str, str]]:
    """The same of jobs of which no more is known than what was typed."""
    typed = [dict(keys_of(own)) for own in overrides]
    keys = dict.fromkeys(key for one in typed for key in one)
    differing = [key for key in keys if len({one.get(key) for one in typed}) > 1]
    return [{key: one[key] for key in differing if key in one} for one in typed]


def keys_of(overrides: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Key and value of each; of several in braces, as in loss={alpha:1,beta:0}, each by its own."""
    for item in overrides:
        key, _, value = item.partition("=")
        if SEVERAL.fullmatch(value):
            for part in value[1:-1].split(","):
                name, _, own = part.partition(":")
                yield f"{key}.{name.strip()}", own.strip()
        else:
            yield key, value


def grouped(jobs: Sequence[Result], keys: Iterable[str]) -> list[Variant]:
    """The jobs with a result by what they have for these keys, in the order of the sweep; those of a
    variant are told apart by what they have for the others."""
    chosen = list(keys)
    variants: dict[str, Variant] = {}
    for job, settings in zip(jobs, settings_of(jobs), strict=True):
        variant = Variant({key: settings[key] for key in chosen if key in settings})
        name = " ".join(value for key, value in settings.items() if key not in chosen)
        _add(variants.setdefault(variant.name, variant), name, job)
    return list(variants.values())


ENDED = ("completed", "diverged")


def _add(variant: Variant, seed: str, job: Result) -> None:
    value = job.value
    if value is not None and math.isfinite(value):
        variant.values[seed] = value
    else:
        variant.diverged.append(seed)
    figures = (
        (variant.norms, "grad_norm", "max"),
        (variant.spikes, "spikes", "loss"),
        (variant.refused, "guard", "skipped"),
    )
    for kept, part, key in figures:
        figure = _figures(job.summary, part).get(key)
        if figure is not None and math.isfinite(figure):
            kept[seed] = figure


def _figures(summary: Mapping[str, Any], part: str) -> Mapping[str, Any]:
    return summary.get(part) or {}


def _verdict(gains: Sequence[float], error: float | None) -> str:
    if error is None:
        return ""
    if not any(gains):
        return SAME
    limit = STUDENT[min(len(gains) - 1, len(STUDENT)) - 1] * error
    if abs(mean(gains)) <= limit:
        return NOTHING
    return HELPS if mean(gains) > 0 else HURTS

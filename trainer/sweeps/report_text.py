"""The text of a sweep's report."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Sequence
from typing import Any

import yaml

from trainer.sweeps.comparison import Comparison, Entry, compare, settings_of
from trainer.sweeps.marginals import Effect, effects
from trainer.sweeps.stability import Rates, rates
from trainer.wording import MISSING, number, percent, spread

MOST_LISTED = 256
HEADINGS = ("runs", "better by", "", "largest norm", "spikes", "diverged")


def objective(jobs: Sequence[Entry]) -> tuple[str, bool]:
    """What the jobs are judged by, and whether more of it is better."""
    found = next((job.summary["objective"] for job in jobs if job.summary.get("objective")), None)
    return (found["tag"], found["higher_is_better"]) if found else ("objective", False)


def command_of(job: Entry) -> str:
    """The command that does what a job did, alone."""
    words = [word for word in job.overrides if not word.startswith("hydra.mode=")]
    # A sweep config may set more than the keys it sweeps, so it is kept, but for its mode.
    mode = ["hydra.mode=RUN"] if any(word.startswith("sweep=") for word in words) else []
    flags: list[str] = []
    try:
        stored = yaml.safe_load((job.folder / ".hydra" / "hydra.yaml").read_text(encoding="utf-8"))
        sources: list[dict[str, str]] = stored["hydra"]["runtime"]["config_sources"]
        own = [source["path"] for source in sources if source["provider"] == "command-line"]
        flags = [word for path in own for word in ("--config-dir", path)]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError):
        pass  # a folder that was moved or thinned out: what was typed is known all the same
    return f"python train.py {shlex.join([*flags, *words, *mode])}"


def compared(comparison: Comparison) -> list[list[str]]:
    """A table of what several seeds say: its headings, then a row for each variant."""
    keys = list(dict.fromkeys(key for variant in comparison.variants for key in variant.settings))
    rows = [[*keys, HEADINGS[0], comparison.tag, *HEADINGS[1:]]]
    for variant in comparison.variants:
        difference = comparison.difference(variant)
        lost = f"{len(variant.diverged)} of {variant.runs}" if variant.diverged else "0"
        rows.append(
            [
                *(variant.settings.get(key, MISSING) for key in keys),
                str(variant.runs),
                spread(variant.mean, variant.deviation),
                "" if difference is None else spread(difference.mean, difference.error),
                "reference" if difference is None else difference.verdict,
                number(variant.largest_norm, 3),
                percent(variant.spiking),
                lost,
            ]
        )
    return rows


def figure(job: Entry, *path: str) -> Any:
    """A figure of the summary, by the keys that lead to it; None where it is not there."""
    value: Any = job.summary
    for name in path:
        value = (value or {}).get(name)
    return value


def text(jobs: Sequence[Entry], ranked: Sequence[Entry], pictures: Sequence[str]) -> str:
    """The report in Markdown.

    Args:
        jobs: of the sweep, in its order.
        ranked: the same, the best first.
        pictures: the names of those that lie beside it.
    """
    tag, higher = objective(jobs)
    keys = dict.fromkeys(key for one in settings_of(jobs) for key in one)
    statuses = Counter(str(job.summary["status"] or "killed") for job in jobs)
    ended = ", ".join(f"{number} {status}" for status, number in statuses.items())
    common = set.intersection(*(set(job.overrides) for job in jobs))
    shared = " ".join(f"`{word}`" for word in jobs[0].overrides if word in common)
    lines = [f"# {tag} over {', '.join(keys)}" if keys else f"# {tag}", ""]
    lines += [f"{len(jobs)} jobs: {ended}. {'More' if higher else 'Less'} is better."]
    lines += [f"All of them with {shared}." if shared else "", ""]
    lines += [f"![]({name})" for name in pictures if name == "report.png"]
    comparison = compare(jobs)
    for section in (
        _best(jobs, comparison, tag),
        _effects(effects(jobs), tag),
        _seeds(comparison),
        _stability(rates(jobs), pictures),
        _all(ranked, tag, list(keys)),
    ):
        lines += ["", *section] if section else []
    return "\n".join([*lines, ""])


def best_of(jobs: Sequence[Entry], comparison: Comparison | None) -> Entry | None:
    """The best job; with several seeds, the first of the best mean; None where none was completed."""
    best = None if comparison is None else comparison.best
    own = zip(jobs, settings_of(jobs), strict=True)
    done = [(job, settings) for job, settings in own if job.summary["status"] == "completed"]
    if best is not None:
        return next(job for job, settings in done if best.settings.items() <= settings.items())
    return min((job for job, _ in done), key=lambda job: job.badness, default=None)


def _best(jobs: Sequence[Entry], comparison: Comparison | None, tag: str) -> list[str]:
    """The command of the best job; with several seeds, that of the best mean, with its first seed."""
    best = best_of(jobs, comparison)
    if best is None:
        return ["No job reached its end."]
    told = f"{tag} {number(best.value)}, job {best.folder.name}:"
    if comparison is not None and (variant := comparison.best) is not None:
        lost = f" ({len(variant.diverged)} diverged)" if variant.diverged else ""
        told = f"{tag} {spread(variant.mean, variant.deviation)} over {variant.runs} seeds{lost}, the "
        told += "best mean; the first of them again:"
    return ["## Best", "", told, "", "```bash", command_of(best), "```"]


def _effects(found: Sequence[Effect], tag: str) -> list[str]:
    if not found:
        return []
    lines = ["## What each key does", ""]
    lines += [
        f"Mean ± standard deviation, and median, of {tag} over whatever else was swept; without "
        "diverged jobs.",
    ]
    for effect in found:
        rows = [[effect.key, tag, "median", "jobs", "diverged"]]
        for level in effect.levels:
            value = spread(level.mean, level.deviation)
            name = level.settings.get(effect.key, MISSING)
            lost = str(len(level.diverged))
            rows.append([name, value, number(level.middle), str(level.runs), lost])
        lines += ["", *_table(rows, left=1)]
    return lines


def _seeds(comparison: Comparison | None) -> list[str]:
    if comparison is None:
        return []
    rows = compared(comparison)
    lines = ["## Over the seeds", ""]
    lines += [
        "Mean ± standard deviation over the seeds, without diverged runs; better by: than the first,"
    ]
    lines += ["mean ± standard error of the differences seed by seed.", ""]
    return lines + _table(rows, left=rows[0].index("runs"))


def _stability(swept: tuple[str, list[Rates]] | None, pictures: Sequence[str]) -> list[str]:
    lines = [f"![]({name})" for name in pictures if name == "stability_map.png"]
    if swept is not None and swept[1]:
        key, rows = swept
        names = list(dict.fromkeys(name for one in rows for name in one.settings))
        table = [[*names, "stable", "decades", "best", "loss there", "sensitivity"]]
        for one in rows:
            settings = [one.settings.get(name, MISSING) for name in names]
            figures = [number(one.losses[one.best]), number(one.sensitivity)]
            table.append([*settings, *_range(one), f"{one.best:g}", *figures])
        lines += [*[""] * bool(lines), *_table(table, left=len(names)), ""]
        lines += [
            f"Stable: the neighbouring values of {key} around the best at which no run diverged, no "
            "loss spiked, no step was refused, and the last loss comes at least half of the way from "
            "the first to the best; ≥ where the row ends with the sweep. Sensitivity: the mean over the "
            "values swept of min(loss, first loss) − best loss (arXiv 2309.14322). The first loss is "
            "that of the first logged steps at the smallest value."
        ]
    return ["## Stability", "", *lines] if lines else []


def _range(one: Rates) -> list[str]:
    """The stable learning rates, and how many decades they span."""
    if not one.stable:
        return ["none", MISSING]
    first, last, swept = one.stable[0], one.stable[-1], list(one.losses)
    cut = first == swept[0] or last == swept[-1]
    wide = f"{math.log10(last / first):.1f}" if first > 0 else MISSING
    return [f"{first:g} to {last:g}" if last > first else f"{first:g}", f"{'≥ ' * cut}{wide}"]


def _all(ranked: Sequence[Entry], tag: str, keys: list[str]) -> list[str]:
    settings = settings_of(ranked)
    rows = [["job", tag, *keys, "largest norm", "refused", "ended"]]
    for job, own in zip(ranked[:MOST_LISTED], settings, strict=False):
        status, reason = str(job.summary["status"] or "killed"), str(job.summary.get("reason") or "")
        value = number(job.value)
        typed = [own.get(key, MISSING) for key in keys]
        norm = number(figure(job, "grad_norm", "max"), 3)
        refused = figure(job, "guard", "skipped")
        rows.append(
            [
                job.folder.name,
                value,
                *typed,
                norm,
                MISSING if refused is None else str(refused),
                f"{status}: {reason}".rstrip(": "),
            ]
        )
    lines = ["## All jobs", "", *_table(rows, left=0)]
    left = len(ranked) - MOST_LISTED
    return lines if left <= 0 else [*lines, "", f"{left} more are in report.csv."]


def _table(rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """As Markdown: the first columns to the left, the others to the right."""
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    sides = ["---" if column < left else "---:" for column in range(len(rows[0]))]
    return [lines[0], f"| {' | '.join(sides)} |", *lines[1:]]

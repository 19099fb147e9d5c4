"""Every recipe of conf/experiment, trained in full: ``python -m benchmarks.recipes``.

Prints a table in Markdown: what each run ended with, and beside it what that is measured against, which
is computed anew on the same validation samples. ``python -m benchmarks.recipes tabular seed=1`` trains
the named ones, with further overrides. Each is a command of its own, on one thread; the seconds are of
CPU time, which other work on the machine does not lengthen much.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import photos, tabular, watermark
from trainer.data.photos import photos as photo_data

ROOT = Path(__file__).parent.parent
RECIPES = sorted(path.stem for path in (ROOT / "conf" / "experiment").glob("*.yaml"))
HEADER = ("recipe", "command", "metric", "result", "measured against", "steps", "CPU seconds")


@dataclass(frozen=True)
class Bar:
    """What a result is to be better than: a value of the same metric, and what it is of."""

    value: float
    what: str


def cnn_classifier() -> Bar:
    """The accuracy that a recipe for these digits has to reach, whatever else could."""
    return Bar(0.985, "asked of it")


def photo_denoise() -> Bar:
    """Two decibels above the better of the two filters."""
    noisy, clean = photo_data().val
    filters = {
        "Gaussian": photos.best(photos.gaussian, photos.SIGMAS, noisy, clean),  # type: ignore[arg-type]
        "median": photos.best(photos.median, photos.SIDES, noisy, clean),  # type: ignore[arg-type]
    }
    name = max(filters, key=lambda name: filters[name])
    decibels = filters[name][0]
    return Bar(decibels + 2, f"best {name} filter, {decibels:.2f}, and 2 dB")


def tabular_bar() -> Bar:
    """The linear regression."""
    figures = tabular.least_squares()
    return Bar(figures["mae"], f"least squares; its r2 is {figures['r2']:.3f}")


def watermark_bar() -> Bar:
    """The mean of the real part over each ring."""
    figures = watermark.told_rightly()
    best = figures["likelihood ratio"]
    return Bar(figures["mean"], f"mean over each ring; their likelihood ratio: {best:.4f}")


# By the name of the recipe; one without a bar is trained all the same.
BARS: dict[str, Callable[[], Bar]] = {
    "cnn_classifier": cnn_classifier,
    "photo_denoise": photo_denoise,
    "tabular": tabular_bar,
    "watermark": watermark_bar,
}


def train(name: str, overrides: Sequence[str] = ()) -> tuple[dict[str, Any], float]:
    """The summary of a recipe's run and the CPU seconds of the whole command."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["train.py", f"experiment={name}", *overrides, f"hydra.run.dir={folder}/run"]
        before = _cpu_seconds()
        subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            check=True,
        )
        summary = json.loads((Path(folder) / "run" / "summary.json").read_text(encoding="utf-8"))
    return summary, _cpu_seconds() - before


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def missed(objective: dict[str, Any], bar: Bar) -> bool:
    """Whether the result is not better than the bar."""
    ahead = objective["value"] - bar.value
    return not (ahead if objective["higher_is_better"] else -ahead) > 0  # NaN misses too


def row(name: str, summary: dict[str, Any], seconds: float, bar: Bar | None) -> str:
    """A line of the table; a result that misses its bar says so."""
    objective, beside = summary["objective"], "-"
    result = f"{objective['value']:.4g}"
    if bar is not None:
        beside = f"{bar.value:.4g} ({bar.what})"
        result += " **missed**" * missed(objective, bar)
    command, metric = f"`python train.py experiment={name}`", f"`{objective['tag']}`"
    cells = (f"`{name}`", command, metric, result, beside, f"{summary['steps']}", f"{seconds:.0f}")
    return f"| {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """Trains and prints; the status is 1 if a recipe misses its bar."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"recipes, {', '.join(RECIPES)}; and key=value")
    words = parser.parse_args(arguments).names
    names = [word for word in words if "=" not in word]
    if unknown := sorted({*names} - {*RECIPES}):
        parser.error(f"there is no recipe {', '.join(unknown)}; there are {', '.join(RECIPES)}")
    print(f"| {' | '.join(HEADER)} |\n|{' --- |' * len(HEADER)}", flush=True)
    misses = 0
    for name in names or RECIPES:
        summary, seconds = train(name, [word for word in words if "=" in word])
        bar = BARS[name]() if name in BARS else None
        misses += bar is not None and missed(summary["objective"], bar)
        print(row(name, summary, seconds, bar), flush=True)
    return int(misses > 0)


if __name__ == "__main__":
    raise SystemExit(main())

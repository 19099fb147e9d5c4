"""Every figure on one page: ``python -m benchmarks``, about ten minutes on two quiet cores.

Each part is a benchmark that also runs alone (``python -m benchmarks.step`` and so on); here each takes
less time. Contenders take turns, and what is judged are medians of the ratios of a round, on one thread
but for the sweeps. ``--write`` puts the page into benchmarks/RESULTS.md and its first table into the
README.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from datetime import date
from pathlib import Path

import torch

from benchmarks import clip, diagnostics, guard, memory, startup, step, sweep
from benchmarks.jobs import JOBS
from benchmarks.tables import Part

ROOT = Path(__file__).resolve().parents[1]
RESULTS, README = ROOT / "benchmarks" / "RESULTS.md", ROOT / "README.md"
BEGIN, END = "<!-- speed:begin -->", "<!-- speed:end -->"
SIZES, FEW_SIZES = (4, 16, 64, 256), (4, 16)
INTRO = """\
# What was measured

A ratio is the median of those formed round by round. `a / b` is that of a to b: of speeds in the first
part and in the loop, of times or memory in the others. `-` is what was not run."""
NAMES = ("steps", "memory", "startup", "clip", "diagnostics", "guard", "sweeps")


def measured(quick: bool, sizes: Sequence[int], only: Sequence[str] = NAMES) -> Iterator[Part]:
    """Each part as it comes, those of steps first."""
    few = 3 if quick else 5
    make: dict[str, Callable[[], Iterator[Part]]] = {
        "steps": lambda: step.measure(list(JOBS), few, 0.5 if quick else 1.2),
        "memory": lambda: memory.measure(["unet"] if quick else list(JOBS)),
        "startup": lambda: startup.measure(few),
        "clip": lambda: clip.measure(few, 1 if quick else 3),
        "diagnostics": lambda: diagnostics.measure(4 if quick else 20),
        "guard": lambda: guard.measure(4 if quick else 20, 3 * few),
        "sweeps": lambda: sweep.measure(sizes, 5 if quick else 10, 1 if quick else 2),
    }
    for name in NAMES:
        if name in only:
            yield from make[name]()


def surroundings() -> str:
    """What the figures are of."""
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    load = f"load {os.getloadavg()[0]:.1f} when it began" if hasattr(os, "getloadavg") else ""
    return f"{date.today()}, {versions}, {os.cpu_count()} cores {platform.machine()}, {load}"


def page(parts: Sequence[Part], of: str, command: str = "python -m benchmarks") -> str:
    """The whole page in Markdown; what the README quotes stands between two marks.

    Args:
        parts: the first is the one that is quoted.
        of: where and when they were measured.
        command: that made it.
    """
    verdicts = [row[-1] for part in parts for row in part.bars]
    met = f"{verdicts.count('pass')} of {len(verdicts) - verdicts.count('-')} bars are met"
    first, *rest = (part.markdown() for part in parts)
    heading, _, tables = first.partition("\n\n")
    table, _, bars = tables.partition("\n\n")
    told = f"{table}\n\n`{command}`: {of}. {met}."
    return "\n\n".join([INTRO, heading, f"{BEGIN}\n{told}\n{END}", bars, *rest]).rstrip() + "\n"


def quoted(text: str) -> str:
    """What stands between the marks.

    Raises:
        ValueError: if they are not there.
    """
    return _cut(text)[1]


def with_quote(readme: str, results: str) -> str:
    """The README's text with what stands between the marks in the results."""
    before, _, after = _cut(readme)
    return f"{before}{BEGIN}{quoted(results)}{END}{after}"


def _cut(text: str) -> tuple[str, str, str]:
    before, _, rest = text.partition(BEGIN)
    found, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"there must be {BEGIN} and, below it, {END}")
    return before, found, after


def main() -> int:
    """Measures, prints, and writes if asked; the status is 1 only when something crashed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer and shorter turns")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, help="these parts")
    parser.add_argument("--sweeps", nargs="+", type=int, help="points, multiples of 4")
    parser.add_argument("--write", action="store_true", help="write RESULTS.md and the README's table")
    options = parser.parse_args()
    if options.write and "steps" not in options.only:
        parser.error("--write wants steps among the parts: the README quotes them")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    sizes = options.sweeps or (FEW_SIZES if options.quick else SIZES)
    of, parts = surroundings(), []
    for part in measured(options.quick, sizes, options.only):
        print(part, flush=True)
        parts.append(part)
    if options.write:
        write(parts, of, "python -m benchmarks" + " --quick" * options.quick)
    return int(any(part.crashed for part in parts))


def write(parts: Sequence[Part], of: str, command: str) -> None:
    """Into RESULTS.md, and the first table into the README."""
    results, readme = page(parts, of, command), README.read_text(encoding="utf-8")
    RESULTS.write_text(results, encoding="utf-8")
    README.write_text(with_quote(readme, results), encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())

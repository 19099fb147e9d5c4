"""Peak memory of a process that trains one job: ``python -m benchmarks.memory``.

Each contender of `benchmarks.step` trains each job in a process of its own, interpreter and imports
included; what is shown is the high-water mark of its resident set, which Linux keeps (VmHWM). Contenders
take turns; ratios are formed round by round.
"""

import argparse
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.jobs import JOBS
from benchmarks.step import CONTENDERS
from benchmarks.tables import Part, shown
from benchmarks.timing import Bar, Entry, NotInstalled, interleave, median_ratio

ROOT = Path(__file__).resolve().parents[1]
STATUS = Path("/proc/self/status")
STEPS = {"mlp": 100, "unet": 60, "lstm": 20}  # beyond one line of the record; the mark stands by then
LIMIT = 1.05


def high_water() -> float:
    """The largest resident set of this process so far, in MB."""
    # Not ru_maxrss: that begins with what the parent had.
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def peak(job: str, contender: str) -> float:
    """MB of a process that trains it."""
    if not STATUS.exists():
        raise NotInstalled("no /proc here")
    command = [sys.executable, "-m", "benchmarks.memory", "--of", job, contender]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    if not done.stdout:
        raise NotInstalled("not installed")
    return float(done.stdout)


def measure(jobs: list[str], rounds: int = 1) -> Iterator[Part]:
    """A table of all jobs, a row for each contender, and the bars."""
    rows, bars, crashed = [[name] for name in CONTENDERS], [], False
    for job in jobs:
        entries = [Entry(name, lambda _, pair=(job, name): peak(*pair)) for name in CONTENDERS]
        interleave(entries, rounds)
        for row, entry in zip(rows, entries, strict=True):
            row.append(f"{statistics.median(entry.seconds):.0f}" if entry.seconds else entry.absent)
            crashed |= bool(entry.crash)
        for entry in entries[1:]:
            limit = LIMIT if entry.name == "tuned" else 1.0
            bar = Bar(f"{job}: trimtab / {entry.name}", limit, at_least=False)
            bars.append(bar.row(median_ratio(entries[0].seconds, entry.seconds), entry.absent))
    titles = [JOBS[job].title for job in jobs]
    yield Part("Peak memory of the process, MB", ["loop", *titles], rows, bars, crashed)


def main() -> int:
    """Measures and prints; the status is 1 only when something crashed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS), help="what to train")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each contender")
    parser.add_argument("--of", nargs=2, help="train this job by this contender, here, and print MB")
    options = parser.parse_args()
    if not options.of:
        return shown(measure(options.jobs, options.rounds))
    torch.set_num_threads(1)
    job, contender = options.of
    try:
        CONTENDERS[contender](JOBS[job], STEPS[job])
    except NotInstalled:
        return 0
    print(high_water())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

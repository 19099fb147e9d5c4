"""Step throughput on three jobs, side by side: ``python -m benchmarks.step``.

mlp   1000 rows of 10 inputs and 1 target, batches of 32, an MLP 10-50-50-1, squared error: the
      arithmetic is so small that what is timed is the loop around it
unet  the U-Net and the noisy digits of ``python train.py``
lstm  an LSTM of 128 on 32 windows of 128 characters

each with Adam at 1e-3 and gradients clipped to norm 1.0, all on the CPU. Who trains them:

trimtab     ours as `train.py` makes it, with guard and full record: metrics.jsonl and TensorBoard
tuned       the loop tuned by hand: sliced tensors, fused Adam, foreach clipping, no record at all
plain       the loop people copy: DataLoader, default Adam, `loss.item()` kept for each step
fabric, lightning (Trainer), accelerate, ignite: see `benchmarks.peers`

Contenders take turns in one process, each for `--seconds` a round, after a warm-up that also chooses
their step counts. Each turn trains a fresh model. The clock covers the steps and their record, not the
set-up. Bars are medians of the ratios formed round by round.

All get the same number of threads, one unless `--threads` says otherwise: small matrices gain nothing
from a second, and on busy cores its barriers cost milliseconds a step.
"""

import argparse
import os
import statistics
from collections.abc import Callable, Iterator

import torch

from benchmarks.jobs import JOBS, Job
from benchmarks.loops import plain, trimtab, tuned
from benchmarks.peers import accelerate, fabric, ignite, lightning
from benchmarks.tables import Part, shown
from benchmarks.timing import Bar, Entry, calibrate, interleave, median_ratio

CONTENDERS = {
    "trimtab": trimtab,
    "tuned": tuned,
    "plain": plain,
    "fabric": fabric,
    "lightning": lightning,
    "accelerate": accelerate,
    "ignite": ignite,
}
LIMITS = {"tuned": 0.95}  # of the ratio to each; ahead of all others
MLP_LIMITS = {"tuned": 0.95, "plain": 2.0, "lightning": 5.0}  # where there is little but the loop


def with_threads(
    contender: Callable[[Job, int], float], job: Job, threads: int
) -> Callable[[int], float]:
    """A contender that always starts from the given thread count, whatever the last one set."""

    def measure(steps: int) -> float:
        torch.set_num_threads(threads)
        return contender(job, steps)

    return measure


def turns(job: Job, rounds: int, seconds: float, threads: int) -> list[Entry]:
    """All contenders on one job."""
    entries = [Entry(name, with_threads(one, job, threads)) for name, one in CONTENDERS.items()]
    for entry in entries:
        calibrate(entry, seconds)
    interleave(entries, rounds)
    return entries


def part(measured: dict[str, list[Entry]]) -> Part:
    """One table of all jobs, a row for each contender, and the bars."""
    rows, bars = [[name] for name in CONTENDERS], []
    for job, entries in measured.items():
        ours = entries[0]
        for row, entry in zip(rows, entries, strict=True):
            ratio = median_ratio(ours.rates, entry.rates)
            rate = f"{statistics.median(entry.rates):.4g}" if entry.rates else entry.absent
            row.append(rate if ratio is None or entry is ours else f"{rate} ({ratio:.2f}x)")
        limits = MLP_LIMITS if job == "mlp" else LIMITS
        for entry in entries[1:]:
            bar = Bar(f"{job}: trimtab / {entry.name}", limits.get(entry.name, 1.0))
            bars.append(bar.row(median_ratio(ours.rates, entry.rates), entry.absent))
    titles = [JOBS[job].title for job in measured]
    crashed = any(entry.crash for entries in measured.values() for entry in entries)
    return Part(
        "Steps per second, and how many times as fast trimtab is", ["loop", *titles], rows, bars, crashed
    )


def measure(jobs: list[str], rounds: int = 5, seconds: float = 1.2, threads: int = 1) -> Iterator[Part]:
    """Steps per second of everyone on these jobs."""
    yield part({name: turns(JOBS[name], rounds, seconds, threads) for name in jobs})


def main() -> int:
    """Measure and print; the status is 1 only when a contender crashed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS), help="what to train")
    parser.add_argument("--rounds", type=int, default=7, help="turns for each contender")
    parser.add_argument("--seconds", type=float, default=1.2, help="length of one turn")
    parser.add_argument("--threads", type=int, default=1, help="torch threads for every contender")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    return shown(measure(**vars(parser.parse_args())))


if __name__ == "__main__":
    raise SystemExit(main())

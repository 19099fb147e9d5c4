"""The fault matrix: ``python -m benchmarks.faults --minutes 60`` runs it for as long as it is given.

Each row breaks real runs of ``train.py`` in one way, repairs them as a person would (``resume=``), and
compares the outcome with a run that was left alone: record byte for byte, every tensor of the last
checkpoint bit for bit. Printed are tries that held, of all, and how many were asked for: a row that has
got there leaves its time to the others. The rows that are not here need no process of their own and are
in the tests: 8 and 9 (test_faults_in_training.py, test_transaction.py), 14 (test_security.py), 15
(test_hostile_config.py), 17 (test_bad_input.py).
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch

from benchmarks.faults.disks import all_damaged, damaged, disk_full, events_full
from benchmarks.faults.kills import POINTS, asked_to_stop, killed_at_any_instant, killed_inside_a_save
from benchmarks.faults.runs import here
from benchmarks.faults.soak import soak
from benchmarks.faults.sweeps import failing_jobs, failing_jobs_in_turn, killed_sweep, started_together
from benchmarks.faults.workers import failing_worker

SOAKED = 1_000_000  # steps in an hour; of a shorter time its share
LEAST = 10_000  # or memory has not settled


@dataclass
class Row:
    """A row of the matrix, and how it fared."""

    name: str
    holds: Callable[[Path, random.Random], bool]
    asked: int
    held: int = 0
    begun: int = 0


def rows(minutes: float) -> list[Row]:
    """All rows, with the tries that are asked of each."""
    steps = max(LEAST, min(SOAKED, round(SOAKED * minutes / 60)))
    return [
        Row("1, 16  SIGKILL at any instant", killed_at_any_instant, 200),
        Row("2      SIGKILL inside a save", killed_inside_a_save, POINTS),
        Row("3      SIGTERM, SIGINT, SIGUSR1", asked_to_stop, 100),
        Row("4      disk full in a checkpoint", disk_full, 50),
        Row("5      disk full in TensorBoard", events_full, 50),
        Row("6      newest checkpoint damaged", damaged, 600),
        Row("7      all checkpoints damaged", all_damaged, 20),
        Row("10     16 of 64 jobs fail", failing_jobs, 5),
        Row("10     the same, basic launcher", failing_jobs_in_turn, 5),
        Row("11     the sweep is killed", killed_sweep, 50),
        Row("12     64 runs started together", started_together, 5),
        Row("13     a data worker fails", failing_worker, 50),
        Row(f"18     {steps:,} steps", partial(soak, steps=steps), 1),
    ]


def attempt(row: Row, number: int, seed: int, kept: Path) -> bool:
    """One try at a row, in a folder of its own; ``number`` came before it."""
    here.kept, here.number, here.forks = kept, number, number > 0
    why = "it did not hold"
    with tempfile.TemporaryDirectory() as folder:
        try:
            if row.holds(Path(folder), random.Random(f"{seed} {row.name} {number}")):
                return True
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
    print(f"row {row.name}, try {number} of --seed {seed}: {why}", file=sys.stderr)
    return False


def run(table: list[Row], end: float, seed: int, kept: Path) -> None:
    """Tries, as many at a time as there are cores, the row that lacks most of what is asked of it; until
    none lacks any, or the time is up and each has been tried."""
    cores = len(os.sched_getaffinity(0))
    under_way: dict[Future[bool], Row] = {}
    with ProcessPoolExecutor(cores, get_context("fork")) as pool:
        while True:
            lacking = [row for row in reversed(table) if row.begun < row.asked]
            if time.monotonic() > end:
                lacking = [row for row in lacking if not row.begun]
            if lacking and len(under_way) < cores:
                row = min(lacking, key=lambda row: row.begun / row.asked)
                under_way[pool.submit(attempt, row, row.begun, seed, kept)] = row
                row.begun += 1
                continue
            if not under_way:
                return
            for done in wait(under_way, return_when=FIRST_COMPLETED).done:
                under_way.pop(done).held += done.result()


def main() -> int:
    """Runs the rows until the time is up, each at least once, and prints the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.faults", description="The fault matrix.")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", default="", help="only rows whose name contains this")
    options = parser.parse_args()
    torch.set_num_threads(1)
    began = time.monotonic()
    table = [row for row in rows(options.minutes) if options.rows in row.name]
    with tempfile.TemporaryDirectory() as kept:
        run(table, began + 60 * options.minutes, options.seed, Path(kept))
    print("row    fault                          held/tried   asked")
    for row in table:
        print(f"{row.name:<38}{f'{row.held}/{row.begun}':<13}{row.asked}")
    print(f"in {time.monotonic() - began:.0f} s")
    return int(any(row.held < row.begun for row in table))


if __name__ == "__main__":
    sys.exit(main())

"""The fault matrix: ``python -m benchmarks.faults --minutes 10`` runs it for as long as it is given.

Each row breaks real runs of ``train.py`` in one way, repairs them as a person would (``resume=``), and
compares the outcome with a run that was left alone: record byte for byte, every tensor of the last
checkpoint bit for bit. Printed are attempts that held, of all. The rows that are not here need no
process of their own and are in the tests: 8 and 9 (test_faults_in_training.py, test_transaction.py), 14
(test_security.py), 15 (test_hostile_config.py), 17 (test_bad_input.py).
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.faults.disks import all_damaged, damaged, disk_full, events_full
from benchmarks.faults.kills import asked_to_stop, killed_at_any_instant, killed_inside_a_save
from benchmarks.faults.runs import Row
from benchmarks.faults.soak import soak
from benchmarks.faults.sweeps import failing_jobs, failing_jobs_in_turn, killed_sweep, started_together
from benchmarks.faults.workers import failing_worker

ROWS: dict[str, Row] = {
    "1, 16  SIGKILL at any instant": killed_at_any_instant,
    "2      SIGKILL inside a save": killed_inside_a_save,
    "3      SIGTERM, SIGINT, SIGUSR1": asked_to_stop,
    "4      disk full in a checkpoint": disk_full,
    "5      disk full in TensorBoard": events_full,
    "6      newest checkpoint damaged": damaged,
    "7      all checkpoints damaged": all_damaged,
    "10     jobs of a sweep fail": failing_jobs,
    "10     the same, basic launcher": failing_jobs_in_turn,
    "11     the sweep is killed": killed_sweep,
    "12     runs started together": started_together,
    "13     a data worker fails": failing_worker,
    "18     20,000 steps, 40 saves": soak,
}


def attempt(row: Row, rng: random.Random) -> bool:
    """One attempt at a row, in a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        return row(Path(folder), rng)


def main() -> int:
    """Runs the rows in turn until the time is up, each at least once, and prints the table."""
    parser = argparse.ArgumentParser(prog="benchmarks.faults", description="The fault matrix.")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", default="", help="only rows whose name contains this")
    options = parser.parse_args()
    rng, end = random.Random(options.seed), time.monotonic() + 60 * options.minutes
    rows = {name: row for name, row in ROWS.items() if options.rows in name}
    held, tried = dict.fromkeys(rows, 0), dict.fromkeys(rows, 0)
    while time.monotonic() < end or not all(tried.values()):
        name = min(tried, key=lambda name: tried[name])
        tried[name] += 1
        try:
            held[name] += attempt(rows[name], rng)
        except Exception as error:
            print(f"{name}: {type(error).__name__}: {error}", file=sys.stderr)
    print("row    fault                          held")
    for name in rows:
        print(f"{name:<38}{held[name]}/{tried[name]}")
    return int(held != tried)


if __name__ == "__main__":
    sys.exit(main())

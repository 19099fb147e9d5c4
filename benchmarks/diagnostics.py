"""What looking into the model costs: ``python -m benchmarks.diagnostics``.

Steps of the problems of `benchmarks.problems` at the default interval (a record every 20 steps, of which
`Diagnostics` samples one in ``every``), each trained with diagnostics=off, light and full, without
validation and without a folder, all of `fit` timed. They take turns in one process, and ratios are
formed round by round (see `benchmarks.timing`).
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch

from benchmarks.guard import compare
from benchmarks.problems import PROBLEMS, train
from benchmarks.timing import Bar, Entry, calibrate, table
from trainer.diagnostics import Diagnostics

LEVELS: dict[str, Callable[[], Diagnostics | None]] = {
    "off": lambda: None,
    "light": Diagnostics,
    "full": lambda: Diagnostics(every=1, parameters=True, histograms=True, shares=True),
}
LIMITS = {"light": 1.03}


def main() -> int:
    """Measures and prints; the status is 1 only when something crashed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="turns for each contender")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of one turn of steps")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, crashed = [], False
    for problem in PROBLEMS:
        entries = [
            Entry(name, partial(train, problem, {"diagnostics": make})) for name, make in LEVELS.items()
        ]
        calibrate(entries[0], options.seconds, first=50)
        for entry in entries:  # a whole number of sampled intervals
            entry.amount = max(100, entries[0].amount // 100 * 100)
        bars = {
            level: Bar(f"{problem}: {level} / off", limit, at_least=False)
            for level, limit in LIMITS.items()
        }
        rows += compare(f"step of {problem}", entries, bars, options.rounds)
        crashed |= any(entry.crash for entry in entries)
    print(table(["bar", "wanted", "measured", ""], rows))
    return int(crashed)


if __name__ == "__main__":
    raise SystemExit(main())

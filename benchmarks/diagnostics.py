"""What looking into the model costs: ``python -m benchmarks.diagnostics``.

Steps of the problems of `benchmarks.problems` at the default interval (a record every 20 steps, of which
`Diagnostics` samples one in ``every``), each trained with diagnostics=off, light and full, without
validation and without a folder. The trainings take turns of 100 steps in one process, and ratios are
formed round by round (see `benchmarks.timing`).
"""

import argparse
from collections.abc import Callable

import torch

from benchmarks.problems import overheads
from benchmarks.timing import table
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
    parser.add_argument("--seconds", type=float, default=60, help="for each problem")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows, crashed = overheads("diagnostics", LEVELS, LIMITS, options.seconds)
    print(table(["bar", "wanted", "measured", ""], rows))
    return int(crashed)


if __name__ == "__main__":
    raise SystemExit(main())

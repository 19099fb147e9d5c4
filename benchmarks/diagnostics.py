"""What looking into the model costs: ``python -m benchmarks.diagnostics``.

Steps of the problems of `benchmarks.problems` at the default interval (a record every 20 steps, of which
`Diagnostics` samples one in ``every``), each trained with diagnostics=off, light and full, without
validation and without a folder. The trainings take turns of 100 steps in one process, and ratios are
formed round by round (see `benchmarks.timing`).
"""

import argparse
from collections.abc import Callable, Iterator

from benchmarks.problems import overheads
from benchmarks.tables import Part, shown
from trainer.diagnostics import Diagnostics

LEVELS: dict[str, Callable[[], Diagnostics | None]] = {
    "off": lambda: None,
    "light": Diagnostics,
    "full": lambda: Diagnostics(every=1, parameters=True, histograms=True, shares=True),
}
LIMITS = {"light": 1.03}


def measure(seconds: float = 60) -> Iterator[Part]:
    """Microseconds of a step at each level."""
    yield from overheads("diagnostics", LEVELS, LIMITS, seconds)


def main() -> int:
    """Measures and prints; the status is 1 only when something crashed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60, help="for each problem")
    return shown(measure(parser.parse_args().seconds))


if __name__ == "__main__":
    raise SystemExit(main())

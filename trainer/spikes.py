"""Is this value out of line with those before it? A limit that outliers cannot move, for the guard; and
the share of values that stood out, for the summary."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trainer import checks

LEAST_SIGMA = 0.2


class SpikeDetector:
    """Tells which values are larger than the recent ones can explain.

    On accepted values x > 0, y = log x: limit = exp(median(y) + z · max(1.4826 · MAD(y), 0.2)), and
    never less than the first median: what was ordinary when the run began is no spike later. Medians,
    because a mean and a standard deviation are moved by the very outliers they should find; logarithms,
    because losses and norms vary by factors; the floor, because a steady run has MAD 0 and any value
    would stand out. While a value <= 0 is in the window there is no limit.

    Args:
        z: how many robust standard deviations of log x are let pass; inf detects nothing. With the
            floor, 8 never refuses what is less than 4.9 times the median.
        window: how many of the latest accepted values are looked at.
        least: no limit before so many are there.
        refresh: accepted values between two looks at the window; a median costs 2 % of a small step.

    Raises:
        ValueError: for an argument out of range.
    """

    def __init__(self, z: float = 8.0, window: int = 128, least: int = 32, refresh: int = 32) -> None:
        self.z = checks.number("spike_z", z, above=0, finite=False, remedy="inf detects no spikes")
        self.least = checks.whole("least", least, at_least=1)
        self.values: deque[float] = deque(maxlen=checks.whole("window", window, at_least=least))
        self.refresh = refresh
        self.seen = 0
        self.limit = math.inf
        self.ordinary = 0.0

    def accept(self, value: float) -> None:
        """Takes a finite value of a committed step into account."""
        self.values.append(value)
        self.seen += 1
        if self.seen >= self.least and self.seen % self.refresh == 0:
            self.limit = self._limit()

    def accept_all(self, values: list[float]) -> None:
        """`accept` for each in turn, of at most ``quiet`` values."""
        self.values.extend(values)
        self.seen += len(values)
        if self.seen >= self.least and self.seen % self.refresh == 0:
            self.limit = self._limit()

    @property
    def quiet(self) -> int:
        """How many values change the limit with the last of them, at the earliest."""
        return self.refresh - self.seen % self.refresh

    def forget(self) -> None:
        """Starts anew: what looked like a spike has turned out to be a new level."""
        self.values.clear()
        self.seen, self.limit, self.ordinary = 0, math.inf, 0.0

    def state_dict(self) -> dict[str, Any]:
        """The window and where it stands."""
        numbers = {name: getattr(self, name) for name in ("seen", "limit", "ordinary")}
        return {"values": torch.tensor(self.values, dtype=torch.float64), **numbers}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the window."""
        values = torch.as_tensor(state["values"], dtype=torch.float64)  # a list in files of format 1
        self.values = deque(values.tolist(), self.values.maxlen)
        self.seen, self.limit = state["seen"], state["limit"]
        self.ordinary = state["ordinary"]

    def _limit(self) -> float:
        values = np.sort(np.fromiter(self.values, float, len(self.values)))
        if values[0] <= 0 or math.isinf(self.z):
            return math.inf
        logs = np.log(values)
        middle = _median(logs)
        sigma = 1.4826 * _median(np.sort(np.abs(logs - middle)))
        exponent = middle + self.z * max(sigma, LEAST_SIGMA)
        self.ordinary = self.ordinary or math.exp(middle)
        return max(self.ordinary, math.exp(exponent)) if exponent < 700 else math.inf


def _median(ordered: NDArray[np.float64]) -> float:
    """Of values in ascending order; `numpy.median` takes ten times as long for a hundred."""
    half = len(ordered) // 2
    return float(ordered[half] + ordered[~half]) / 2


class SpikeScore:
    """The share of values that lie more than 7 standard deviations above the mean of the 1000 before.

    The figure by which OLMo 2 compares how stable runs are (arXiv 2501.00656, section 3). A value that
    is not finite counts as a spike and enters no mean.

    Args:
        window: how many earlier values count.
        least: nothing is judged before so many are there.
        z: standard deviations.
    """

    def __init__(self, window: int = 1000, least: int = 100, z: float = 7.0) -> None:
        self.window, self.least, self.z = window, least, z
        self.recent = np.empty(0)
        self.waiting: list[NDArray[np.float64]] = []
        self.spikes = self.judged = 0

    @property
    def share(self) -> float | None:
        """Spikes among the values judged; None before the first."""
        self.judge()
        return self.spikes / self.judged if self.judged else None

    def extend(self, values: NDArray[np.float64]) -> None:
        """Takes values that are to be judged, each by those before it. Shape (n,)."""
        self.waiting.append(values)
        if (
            sum(map(len, self.waiting)) >= self.window // 2
        ):  # a few at a time would cost as much each time
            self.judge()

    def judge(self) -> None:
        """Judges the values that are waiting."""
        values = np.concatenate((np.empty(0), *self.waiting))
        self.waiting = []
        finite = values[np.isfinite(values)]
        self.spikes += len(values) - len(finite)
        self.judged += len(values) - len(finite)
        if not len(finite):
            return
        line = np.concatenate((self.recent, finite))
        first = max(len(self.recent), self.least)
        self.recent = line[-self.window :]
        line = line - line[0]  # or their squares would cancel
        # Sums over windows as differences of running sums.
        sums = np.zeros((2, len(line) + 1))
        ends = np.arange(first, len(line))
        starts = np.maximum(ends - self.window, 0)
        # The squares of a run that diverges are beyond 1e308.
        with np.errstate(over="ignore", invalid="ignore"):
            np.cumsum((line, line * line), axis=1, out=sums[:, 1:])
            mean, square = (sums[:, ends] - sums[:, starts]) / (ends - starts)
            noise = 1e-12 * square  # a constant line has a variance of rounding errors
            limit = mean + self.z * np.sqrt(np.maximum(square - mean * mean, noise))
        self.spikes += int(np.count_nonzero(line[ends] > limit))
        self.judged += len(ends)

    def state_dict(self) -> dict[str, Any]:
        """The counts and the latest values."""
        self.judge()
        recent = torch.tensor(self.recent)
        return {"recent": recent, "spikes": self.spikes, "judged": self.judged}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores counts and values."""
        self.recent = torch.as_tensor(state["recent"], dtype=torch.float64).numpy().copy()
        self.waiting = []
        self.spikes, self.judged = state["spikes"], state["judged"]

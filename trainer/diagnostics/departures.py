"""The early warning: a layer's updates leave their own history before the loss does."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from trainer.spikes import SpikeDetector
from trainer.wording import count

WINDOW, LEAST = 64, 8  # samples
LEVEL_AFTER = 5  # samples in a row that are out of line are a new level
LOSS = "the loss"  # no layer is called so


class Departures:
    """Tells when the update ratio of a layer is out of line with its own past, before the loss is.

    The rule is that of the guard, `SpikeDetector`, on the layer's sampled ratios r = ‖ΔW‖/‖W‖:
    log r > median + z·max(1.4826·MAD, 0.2). A schedule that rises or falls steadily widens the MAD and
    stays within. What an oversized update does to the loss shows in later steps only.

    Args:
        spike_z: z; inf for no warning.

    Raises:
        ValueError: for a z that is not > 0.

    Example:
        >>> departures = Departures()
        >>> for step in range(8):
        ...     assert departures(step, {"head": 1e-3}, loss=1.0) is None
        >>> departures(8, {"head": 0.5}, loss=1.0)
        'step 8: the update of head is 500 times as large as usual, and the loss has not moved yet'
    """

    def __init__(self, spike_z: float = 8.0) -> None:
        self.spike_z = SpikeDetector(spike_z).z
        self.histories: dict[str, SpikeDetector] = {}
        self.out: dict[str, int] = {}
        self.warnings: list[dict[str, Any]] = []
        self.count = 0

    def __call__(
        self, step: int, ratios: Mapping[str, float], loss: float = math.nan, calm: bool = True
    ) -> str | None:
        """Takes in one sampled step; returns a line to show, once for each departure.

        Args:
            step: which.
            ratios: the update ratio of each layer.
            loss: of about that step; NaN where there is none.
            calm: whether no step was refused of late.
        """
        fresh = {name: ratio for name, ratio in ratios.items() if self._leaves(name, ratio)}
        calm = not self._is_out(LOSS, loss) and calm
        if not fresh or not calm:
            return None
        times = {name: ratio / self._usual(name) for name, ratio in fresh.items()}
        worst = max(times, key=times.__getitem__)
        self.count += len(fresh)
        if len(self.warnings) < LEVEL_AFTER:
            self.warnings.append({"step": step, "layer": worst, "times": round(times[worst], 1)})
        others = f" (and {count(len(fresh) - 1, 'other layer')})" if len(fresh) > 1 else ""
        return (
            f"step {step}: the update of {worst}{others} is {times[worst]:.3g} times as large as usual, "
            "and the loss has not moved yet"
        )

    def state_dict(self) -> dict[str, Any]:
        """Every history, and what was said."""
        histories = {name: history.state_dict() for name, history in self.histories.items()}
        said = {"count": self.count, "warnings": [dict(warning) for warning in self.warnings]}
        return {"histories": histories, "out": dict(self.out), **said}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores all of it."""
        self.histories = {name: self._history() for name in state["histories"]}
        for name, history in self.histories.items():
            history.load_state_dict(state["histories"][name])
        self.out, self.count = dict(state["out"]), state["count"]
        self.warnings = [dict(warning) for warning in state["warnings"]]

    def _leaves(self, name: str, value: float) -> bool:
        before = self.out.get(name, 0)
        return self._is_out(name, value) and before == 0

    def _is_out(self, name: str, value: float) -> bool:
        history = self.histories.setdefault(name, self._history())
        if value <= history.limit:
            self.out[name] = 0
            history.accept(value)
        elif value > history.limit:  # NaN is neither
            self.out[name] = self.out.get(name, 0) + 1
            if self.out[name] == LEVEL_AFTER:
                history.forget()
        return value > history.limit

    def _usual(self, name: str) -> float:
        return float(np.median(self.histories[name].values))

    def _history(self) -> SpikeDetector:
        return SpikeDetector(self.spike_z, WINDOW, LEAST, refresh=LEAST)

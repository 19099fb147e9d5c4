"""Guards decide which steps must not happen.

`judge` looks at the loss and the gradient norm before anything is committed; a refused step leaves
parameters, buffers and optimizer state bit for bit as they were. `settle` is told of every step once
its outcome is known on the host, counts, and says when the run has to end.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

from torch import Tensor

from trainer import checks
from trainer.clipping import known_to_host

LOSS = "non-finite loss"
GRADIENT = "non-finite gradient"


class Guard(Protocol):
    """A policy for bad steps."""

    skipped: int
    causes: dict[str, int]

    def judge(self, loss: Tensor, norm: Tensor) -> Tensor | bool: ...
    def settle(self, loss: float, norm: float, refused: bool) -> str | None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Off:
    """Refuses nothing. A loss that is NaN or inf still ends the run."""

    def __init__(self) -> None:
        self.skipped = 0
        self.causes: dict[str, int] = {}

    def judge(self, loss: Tensor, norm: Tensor) -> bool:
        """Never refuses."""
        return False

    def settle(self, loss: float, norm: float, refused: bool) -> str | None:
        """Returns the reason to end the run, or None."""
        return None if math.isfinite(loss) else f"{LOSS} under guard=off"

    def state_dict(self) -> dict[str, Any]:
        """Nothing to save."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


class Skip:
    """Refuses every step whose loss or gradient is NaN or inf.

    Args:
        max_consecutive: refused steps in a row that the run survives; one more ends it. 0 ends it at
            the first (guard=stop).

    Raises:
        ValueError: if ``max_consecutive`` is not a whole number >= 0.
    """

    def __init__(self, max_consecutive: int = 20) -> None:
        self.max_consecutive = checks.whole("max_consecutive", max_consecutive)
        self.skipped = 0
        self.consecutive = 0
        self.causes = {LOSS: 0, GRADIENT: 0}

    def judge(self, loss: Tensor, norm: Tensor) -> Tensor | bool:
        """Whether to refuse the step: a bool, or a tensor of them where the loss is on a device or
        one per member, shape (K,)."""
        if known_to_host(loss) and known_to_host(norm):
            return not (math.isfinite(loss.item()) and math.isfinite(norm.item()))
        # x − x is 0 where x is finite and NaN where it is not, and NaN differs from everything: a
        # third of the kernels that isfinite takes, and no sum that could overflow.
        return (loss - loss) != (norm - norm)

    def settle(self, loss: float, norm: float, refused: bool) -> str | None:
        """Counts one finished step; returns the reason to end the run, or None."""
        if not refused:
            self.consecutive = 0
            return None
        cause = GRADIENT if math.isfinite(loss) else LOSS
        self.skipped += 1
        self.consecutive += 1
        self.causes[cause] += 1
        if self.consecutive <= self.max_consecutive:
            return None
        return f"{cause}, {self.consecutive} refused step(s) in a row"

    def state_dict(self) -> dict[str, Any]:
        """The counters."""
        return {
            "skipped": self.skipped,
            "consecutive": self.consecutive,
            "causes": dict(self.causes),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the counters."""
        self.skipped = state["skipped"]
        self.consecutive = state["consecutive"]
        self.causes = dict(state["causes"])

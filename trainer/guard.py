"""Guards decide which steps must not happen.

`judge` looks at the loss, the gradient norm and the largest buffer before anything is committed; a
refused step leaves parameters, buffers and optimizer state bit for bit as they were, and its values
enter no statistic. At the buffers, because batch normalization makes loss and gradient of an outlier
look ordinary, while its running variance takes in the square of it, and validation is lost.

`settle` is told of every step once its outcome is known on the host, counts, and says when to give up.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

from torch import Tensor

from trainer import checks
from trainer.clipping import known_to_host
from trainer.spikes import SpikeDetector

LOSS, GRADIENT = "non-finite loss", "non-finite gradient"
LOSS_SPIKE, GRADIENT_SPIKE = "loss spike", "gradient spike"
BUFFER, BUFFER_SPIKE = "non-finite buffer", "buffer spike"
SPIKES = (LOSS_SPIKE, GRADIENT_SPIKE, BUFFER_SPIKE)
SPIKES_TO_A_LEVEL = 5


class Guard(Protocol):
    """A policy for bad steps.

    Attributes:
        skipped: refused steps so far.
        rewound: how often the run went back to a snapshot.
        consecutive: refused steps since the last one that was committed.
        causes: refused steps by cause.
        snapshot_every: steps between two snapshots to go back to; None for none.
        budget: bytes that they may take.
        lr_factor: what the learning rate is multiplied by in the next step.
        reset_momentum: whether going back also empties the optimizer's state.
    """

    skipped: int
    rewound: int
    consecutive: int
    causes: dict[str, int]
    snapshot_every: int | None
    budget: float
    lr_factor: float
    reset_momentum: bool

    def judge(self, loss: Tensor, norm: Tensor, buffers: Tensor | None = None) -> Tensor | bool: ...
    def settle(self, loss: float, norm: float, refused: bool, buffers: float = 0.0) -> str | None: ...
    def rewind(self) -> bool: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Off:
    """Refuses nothing. A loss that is NaN or inf still ends the run."""

    snapshot_every = None
    budget = 0.0
    lr_factor = 1.0
    reset_momentum = False

    def __init__(self) -> None:
        self.skipped = self.rewound = self.consecutive = 0
        self.causes: dict[str, int] = {}

    def judge(self, loss: Tensor, norm: Tensor, buffers: Tensor | None = None) -> bool:
        """Never refuses."""
        return False

    def settle(self, loss: float, norm: float, refused: bool, buffers: float = 0.0) -> str | None:
        """Returns the reason to end the run, or None."""
        return None if math.isfinite(loss) else f"{LOSS} under guard=off"

    def rewind(self) -> bool:
        """There is nothing to go back to."""
        return False

    def state_dict(self) -> dict[str, Any]:
        """Nothing to save."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to restore."""


class Skip:
    """Refuses every step whose loss, gradient or buffers are NaN or inf, or spike (see `SpikeDetector`).

    Five spikes in a row are no spike but a new level: then the window starts anew. Steps that are not
    finite count on.

    Args:
        max_consecutive: refused steps in a row that the run survives; one more and it gives up. 0 gives
            up at the first (guard=stop).
        spike_z: robust standard deviations of the logarithm beyond which a step spikes; inf for none.
        window: accepted steps that a spike is held against.

    Raises:
        ValueError: for an argument out of range.
    """

    snapshot_every: int | None = None
    budget = 0.0
    lr_factor = 1.0
    reset_momentum = False
    level_after: float = SPIKES_TO_A_LEVEL

    def __init__(self, max_consecutive: int = 20, spike_z: float = 8.0, window: int = 128) -> None:
        self.max_consecutive = checks.whole("max_consecutive", max_consecutive)
        least = min(32, checks.whole("window", window, at_least=2))
        self.losses = SpikeDetector(spike_z, window, least)
        self.norms = SpikeDetector(spike_z, window, least)
        self.buffers = SpikeDetector(spike_z, window, least)
        self.skipped = self.rewound = self.consecutive = self.spiking = 0
        self.causes = dict.fromkeys((LOSS, GRADIENT, BUFFER, *SPIKES), 0)

    def judge(self, loss: Tensor, norm: Tensor, buffers: Tensor | None = None) -> Tensor | bool:
        """Whether to refuse the step: a bool, or a tensor of them where the loss is on a device that
        runs ahead of the host, shape (), or one per member, shape (K,).

        Args:
            loss: of the step.
            norm: of its gradient.
            buffers: the largest entry of the model's buffers after the forward pass; None without any.
        """
        if known_to_host(loss) and known_to_host(norm):
            largest = 0.0 if buffers is None else buffers.item()
            return self._cause(loss.item(), norm.item(), largest) is not None
        # x − x is 0 where x is finite and NaN where it is not, and NaN differs from everything: a
        # third of the kernels that isfinite takes, and no sum that could overflow.
        bad: Tensor = (loss - loss) != (norm - norm)
        bad = bad | (loss > self.losses.limit) | (norm > self.norms.limit)
        if buffers is not None:
            bad = bad | ((buffers - buffers) != 0) | (buffers > self.buffers.limit)
        return bad

    def settle(self, loss: float, norm: float, refused: bool, buffers: float = 0.0) -> str | None:
        """Counts one finished step; returns the reason to give up, or None."""
        cause = self._cause(loss, norm, buffers)
        if not refused:
            self.consecutive = self.spiking = 0
            self.losses.accept(loss)
            self.norms.accept(norm)
            if buffers:  # 0 where there are none
                self.buffers.accept(buffers)
            return None
        cause = cause or LOSS_SPIKE  # the device compared in float32 and the host in float64
        self.skipped += 1
        self.consecutive += 1
        self.causes[cause] += 1
        self.spiking = self.spiking + 1 if cause in SPIKES else 0
        if self.consecutive > self.max_consecutive:
            return f"{cause}, {self.consecutive} refused step(s) in a row"
        if self.spiking == self.level_after:
            self._forget()
        return None

    def settle_accepted(self, losses: list[float], norms: list[float], buffers: list[float]) -> None:
        """`settle` for each of some committed steps, no more than the windows are quiet for."""
        self.consecutive = self.spiking = 0
        self.losses.accept_all(losses)
        self.norms.accept_all(norms)
        self.buffers.accept_all([value for value in buffers if value])

    def rewind(self) -> bool:
        """There is nothing to go back to."""
        return False

    def state_dict(self) -> dict[str, Any]:
        """Counters and windows."""
        counters = {name: getattr(self, name) for name in self._counters}
        windows = {name: getattr(self, name).state_dict() for name in self._windows}
        return {**counters, **windows, "causes": dict(self.causes)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores counters and windows."""
        for name in self._counters:
            setattr(self, name, state[name])
        for name in self._windows:
            getattr(self, name).load_state_dict(state[name])
        self.causes = dict(state["causes"])

    _counters: tuple[str, ...] = ("skipped", "rewound", "consecutive", "spiking")

    _windows = ("losses", "norms", "buffers")

    def _forget(self) -> None:
        for name in self._windows:
            getattr(self, name).forget()

    def _cause(self, loss: float, norm: float, buffers: float) -> str | None:
        if not math.isfinite(loss):
            return LOSS
        if not math.isfinite(norm):
            return GRADIENT
        if not math.isfinite(buffers):
            return BUFFER
        if loss > self.losses.limit:
            return LOSS_SPIKE
        if norm > self.norms.limit:
            return GRADIENT_SPIKE
        return BUFFER_SPIKE if buffers > self.buffers.limit else None


class Rewind(Skip):
    """Skips like `Skip`, and goes back to an earlier state where skipping does not help.

    In the middle of a divergence the weights are already bad, and refusing steps cannot mend them.
    After ``max_consecutive`` refused steps in a row, model, optimizer and clip go back to an in-memory
    snapshot, 1 to 2 × ``every`` steps old; the batches in between are not seen again, steps and schedule
    go on, and the learning rate is multiplied by ``backoff`` for ``recover_steps`` steps. The
    in-process form of what PaLM did by hand (arXiv 2204.02311, section 5.1).

    Args:
        max_consecutive: refused steps in a row before going back.
        spike_z: as for `Skip`.
        window: as for `Skip`.
        every: steps between two snapshots, >= 1.
        backoff: factor of the learning rate after going back, in (0, 1].
        recover_steps: how many steps it lasts.
        max_rewinds: how often to go back; then the run ends.
        budget_mb: MiB of memory for at most two snapshots.
        reset_momentum: start with an empty optimizer state after going back.

    Raises:
        ValueError: for an argument out of range.
    """

    level_after = math.inf
    _counters = (*Skip._counters, "recovering")

    def __init__(
        self,
        max_consecutive: int = 4,
        spike_z: float = 8.0,
        window: int = 128,
        every: int = 100,
        backoff: float = 0.5,
        recover_steps: int = 100,
        max_rewinds: int = 3,
        budget_mb: float = 2048,
        reset_momentum: bool = False,
    ) -> None:
        super().__init__(max_consecutive, spike_z, window)
        self.snapshot_every = checks.whole("every", every, at_least=1)
        self.backoff = checks.number("backoff", backoff, above=0)
        if self.backoff > 1:
            raise ValueError(f"backoff must be <= 1, got {backoff!r}; 1 keeps the learning rate")
        self.recover_steps = checks.whole("recover_steps", recover_steps)
        self.max_rewinds = checks.whole("max_rewinds", max_rewinds, at_least=1)
        self.budget = checks.number("budget_mb", budget_mb, above=0) * 2**20
        self.reset_momentum = bool(reset_momentum)
        self.recovering = 0

    @property
    def lr_factor(self) -> float:  # type: ignore[override]
        """``backoff`` while recovering, else 1."""
        return self.backoff if self.recovering else 1.0

    def settle(self, loss: float, norm: float, refused: bool, buffers: float = 0.0) -> str | None:
        """As `Skip.settle`; a spike that stays is a reason to go back, not a new level."""
        self.recovering = max(0, self.recovering - 1)
        return super().settle(loss, norm, refused, buffers)

    def rewind(self) -> bool:
        """Whether to go back now, and counts it; False once ``max_rewinds`` are used up."""
        if self.rewound == self.max_rewinds:
            return False
        self.rewound += 1
        self.consecutive = self.spiking = 0
        self.recovering = self.recover_steps
        self._forget()
        return True

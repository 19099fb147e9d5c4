"""The closing summary of a run: ``summary.json`` and what the closing table is made of."""

from __future__ import annotations

import platform
import signal
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any, Self

from trainer.clipping import Clip, ClipByNorm
from trainer.diagnostics import Diagnostics
from trainer.guard import Guard
from trainer.meter import NormHistory
from trainer.scaler import Scaler


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended: ``completed``, ``diverged``, ``interrupted`` or ``failed``, and why."""

    status: str
    reason: str = ""
    signal: int | None = None

    @classmethod
    def by_signal(cls, number: int) -> Self:
        """The run was asked to stop."""
        return cls("interrupted", signal.Signals(number).name, number)

    @classmethod
    def by_error(cls, error: BaseException) -> Self:
        """Something raised in the middle of a step."""
        if isinstance(error, KeyboardInterrupt):
            return cls.by_signal(signal.SIGINT)
        return cls("failed", f"{type(error).__name__}: {error}")

    def summary(self, steps: int, epochs: int, seconds: float, taken: int) -> dict[str, Any]:
        """How far the run has come, and how fast.

        Args:
            steps: where it stands.
            epochs: begun.
            seconds: since it was started or continued.
            taken: steps since then.
        """
        speed = {"seconds": seconds, "steps_per_second": taken / seconds}
        return {"status": self.status, "reason": self.reason, "steps": steps, "epochs": epochs, **speed}


def statistics(
    norms: NormHistory, clip: Clip, guard: Guard, diagnostics: Diagnostics, scaler: Scaler | None = None
) -> dict[str, Any]:
    """What the run says of its gradients, its clipping, its refused steps, and its surroundings."""
    scaled = {} if scaler is None else {"scaler": scaler.state_dict()}
    return {
        "grad_norm": norm_summary(norms),
        "spikes": {name: score.share for name, score in norms.spikes.items()},
        "clip": clip_summary(clip, norms),
        "guard": {
            "skipped": guard.skipped,
            "rewound": guard.rewound,
            "causes": dict(guard.causes),
        },
        **scaled,
        "diagnostics": diagnostics.summary(),
        "versions": versions(),
    }


def norm_summary(norms: NormHistory) -> dict[str, float | None]:
    """Median, 99th percentile and maximum of the gradient norm before clipping."""
    largest = norms.largest if norms.seen else None
    return {"median": norms.quantile(0.5), "p99": norms.quantile(0.99), "max": largest}


def clip_summary(clip: Clip, norms: NormHistory) -> dict[str, Any]:
    """How often the clip bound, what its threshold was, and what the norms would suggest."""
    fraction = norms.clipped / norms.seen if norms.seen else None
    # That of another mode bounds something else: each tensor, or the first steps.
    max_norm = clip.max_norm if isinstance(clip, ClipByNorm) else None
    suggested = norms.quantile(0.9)
    return {
        "mode": type(clip).__name__,
        "max_norm": max_norm,
        "fraction": fraction,
        "suggested_max_norm": suggested,
        "verdict": _verdict(fraction, max_norm, suggested),
    }


def _verdict(fraction: float | None, max_norm: float | None, suggested: float | None) -> str:
    if fraction is None or suggested is None:
        return "no step was committed"
    one_in_ten = f"clip.max_norm={suggested:.3g} would bind on one step in ten"
    if max_norm is None:
        return f"clip=norm {one_in_ten}"
    if fraction == 0:
        return f"never bound, so it changed nothing; {one_in_ten}"
    if fraction > 0.5:
        return f"rescales most steps, like a smaller learning rate; {one_in_ten}"
    return "binds only on the larger steps, as it should"


@cache  # each lookup searches the folders of all that is installed
def versions() -> dict[str, str]:
    """Versions of what the figures depend on."""
    packages = {name: version(name) for name in ("torch", "numpy", "hydra-core")}
    return {"python": platform.python_version(), **packages}

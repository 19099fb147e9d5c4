"""The loss scale that keeps gradients within float16."""

from __future__ import annotations

from typing import Any, Self

import torch
from torch import Tensor

from trainer import checks
from trainer.clipping import known_to_host


class Scaler:
    """Computes the gradient of s·L and divides it by s, a power of two, so that both are exact.

    float16 knows nothing below 6e-8, where many gradients are, and nothing above 65504. A gradient that
    is not finite although the loss is has been scaled too high: that step must not happen, and s is
    halved. After ``interval`` steps without, s is doubled (arXiv 1710.03740, section 3.2). At s = 1 a
    gradient is what it is, and for the guard to judge.

    Args:
        device: where the loss is; s is there too, and no step waits for it.
        scale: s at the start, a power of two >= 1.
        interval: steps, >= 1.

    Raises:
        ValueError: for an interval out of range.

    Example:
        >>> scaler = Scaler(torch.device("cpu"))
        >>> scaler.up(torch.tensor(0.5)).item()
        32768.0
        >>> scaler.judge(torch.tensor(0.5), torch.tensor(float("inf"))), scaler.scale.item()
        (True, 32768.0)
    """

    def __init__(self, device: torch.device, scale: float = 2.0**16, interval: int = 2000) -> None:
        self.interval = checks.whole("interval", interval, at_least=1)
        self.scale = torch.tensor(scale, dtype=torch.float32, device=device)
        self.good = torch.zeros((), dtype=torch.int32, device=device)  # steps since s has moved
        self.overflows = 0

    @classmethod
    def of(cls, precision: str, device: torch.device) -> Self | None:
        """What a precision needs; None where gradients do not leave its range."""
        return cls(device) if precision == "fp16" else None

    def up(self, loss: Tensor, parts: int = 1) -> Tensor:
        """s·L/N, in float32 at least.

        Args:
            loss: L.
            parts: N, of a batch, over which L is averaged afterwards: of its own rows each has N times
                the gradient, and would overflow where the whole batch does not.
        """
        return loss * self._factor(parts)

    def down(self, gradients: list[Tensor], parts: int = 1) -> None:
        """Divides the gradients by s/N, in place."""
        torch._foreach_div_(gradients, self._factor(parts))

    def judge(self, loss: Tensor, norm: Tensor) -> Tensor | bool:
        """Whether the gradient has overflowed, for which s is to blame; moves s for the next step.

        Args:
            loss: of the step, shape ().
            norm: of its gradient.

        Returns:
            A bool, or a tensor of shape () where the loss is on a device that runs ahead of the host.
        """
        overflow = ((loss - loss) == 0) & ((norm - norm) != 0) & (self.scale > 1)
        # torch's own, which its GradScaler ends in too: one kernel, and no branch.
        torch._amp_update_scale_(self.scale, self.good, overflow.float(), 2.0, 0.5, self.interval)
        return bool(overflow) if known_to_host(norm) else overflow

    def _factor(self, parts: int) -> Tensor:
        return self.scale if parts == 1 else self.scale / parts

    def values(self) -> dict[str, float]:
        """The record: ``scaler/scale`` and ``scaler/overflows``."""
        return {"scaler/scale": self.scale.item(), "scaler/overflows": self.overflows}

    def state_dict(self) -> dict[str, Any]:
        """s, how long it has stood, and the overflows so far."""
        numbers = {"scale": self.scale.item(), "good": int(self.good.item())}
        return {**numbers, "overflows": self.overflows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores all of it."""
        self.scale.fill_(state["scale"])
        self.good.fill_(state["good"])
        self.overflows = state["overflows"]

"""What becomes of a step once the host knows its numbers."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from torch.optim import Optimizer

from trainer.clipping import Clipped
from trainer.guard import Guard
from trainer.meter import Meter, NormHistory
from trainer.refusals import Refusals
from trainer.schedulers import Schedule
from trainer.snapshot import Snapshots
from trainer.summary import Ending


class Ledger:
    """Enters every step with the guard; where that gives up, goes back to a snapshot or ends the run.

    Args:
        guard: counts the steps.
        snapshots: to go back to.
        schedule: stays where it is while the run goes back.
        optimizer: whose momentum the guard may want emptied.
        refusals: keeps some of the steps that were refused.
    """

    def __init__(
        self,
        guard: Guard,
        snapshots: Snapshots,
        schedule: Schedule,
        optimizer: Optimizer,
        refusals: Refusals,
    ) -> None:
        self.guard, self.snapshots, self.schedule = guard, snapshots, schedule
        self.optimizer, self.refusals = optimizer, refusals
        self.meter, self.norms = Meter(), NormHistory()

    def enter(
        self,
        loss: Tensor,
        norm: Tensor,
        clipped: Clipped,
        refused: Tensor | bool,
        terms: Mapping[str, Tensor],
        buffers: Tensor | None,
        later: bool = False,
    ) -> Ending | None:
        """Takes in a step, and settles it unless its numbers are on a device that runs ahead.

        Args:
            loss: of the step, shape ().
            norm: of the gradient, before clipping.
            clipped: what the clip did.
            refused: the verdict.
            terms: of the loss.
            buffers: the largest entry of the model's buffers; None without any.
            later: leave the rest to `read`.

        Returns:
            How the run ends, if it does.
        """
        self.meter.add(loss, norm, clipped, refused, terms, buffers)
        if later:
            return None
        largest = 0.0 if buffers is None else buffers.item()
        return self.settle(loss.item(), norm.item(), bool(refused), largest)

    def read(self, runs_ahead: bool, ending: Ending | None = None) -> Ending | None:
        """Brings the numbers of the steps since the last time to the host, in one transfer.

        Args:
            runs_ahead: whether the device does, so that a step is settled only now.
            ending: how the run ends, if that is known; then nothing more is settled.

        Returns:
            How the run ends, if it does.
        """
        rows = self.meter.read()
        self.norms.extend(rows)
        rewound, rows = self.guard.rewound, rows if runs_ahead else rows[:0]
        for (refused, loss, norm, *_), buffers in zip(rows.tolist(), self.meter.buffers, strict=False):
            if ending is None and self.guard.rewound == rewound:  # what follows was its fault
                ending = self.settle(loss, norm, bool(refused), buffers)
        self.refusals.forget()
        return ending

    def settle(self, loss: float, norm: float, refused: bool, buffers: float) -> Ending | None:
        """Lets the guard count the step; returns how the run ends, if it does."""
        self.refusals.settle(loss, norm, refused, buffers)
        reason = self.guard.settle(loss, norm, refused, buffers)
        if not reason:
            return None
        if not (self.snapshots.taken and self.guard.rewind()):
            return Ending("diverged", reason)
        with self.schedule.unmoved():
            self.snapshots.restore()
        if self.guard.reset_momentum:
            self.optimizer.state.clear()
        return None

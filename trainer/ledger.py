"""What becomes of a step once the host knows its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn
from torch.optim import Optimizer

from trainer.clipping import Clipped
from trainer.computing import follow_layout
from trainer.distributed.sharding import Sharding
from trainer.guard import Guard
from trainer.meter import Meter, NormHistory
from trainer.refusals import Refusals
from trainer.scaler import Scaler
from trainer.schedulers import Schedule
from trainer.snapshot import Snapshots
from trainer.summary import Ending

OVERFLOWED = 2.0


class Ledger:
    """Enters every step with the guard; where that gives up, goes back to a snapshot or ends the run.

    A step that overflowed is the scaler's to count, and no refusal of the guard's.

    Args:
        guard: counts the steps.
        snapshots: to go back to.
        schedule: stays where it is while the run goes back.
        optimizer: whose momentum the guard may want emptied.
        refusals: keeps some of the steps that were refused.
        scaler: of the loss; None for none.
    """

    def __init__(
        self,
        guard: Guard,
        snapshots: Snapshots,
        schedule: Schedule,
        optimizer: Optimizer,
        refusals: Refusals,
        scaler: Scaler | None = None,
    ) -> None:
        self.guard, self.snapshots, self.schedule = guard, snapshots, schedule
        self.optimizer, self.refusals, self.scaler = optimizer, refusals, scaler
        self.overflow: Tensor | bool = False
        self.meter, self.norms = Meter(), NormHistory()

    def open(
        self, folder: Path | None, modules: Mapping[str, nn.Module], sharding: Sharding | None = None
    ) -> None:
        """Before the first step.

        Args:
            folder: the run folder, for refused steps; None keeps none.
            modules: model and loss, by name.
            sharding: of a model that is cut up.
        """
        self.refusals.open(folder, modules, self.guard, self.scaler, sharding)
        self.snapshots.begin(self.guard.snapshot_every)

    def judge(self, loss: Tensor, norm: Tensor, buffers: Tensor | None) -> Tensor | bool:
        """Whether the step must not happen, because it overflowed or because the guard says so: a bool,
        or a tensor of shape () where its numbers are on a device that runs ahead of the host."""
        refused = self.guard.judge(loss, norm, buffers)
        if self.scaler is None:
            return refused
        self.overflow = self.scaler.judge(loss, norm)
        return refused | self.overflow

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
        verdict = refused if self.scaler is None else refused + 1.0 * self.overflow
        self.meter.add(loss, norm, clipped, verdict, terms, buffers)
        if later:
            return None
        largest = 0.0 if buffers is None else buffers.item()
        return self.settle(loss.item(), norm.item(), float(verdict), largest)

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
        for (verdict, loss, norm, *_), buffers in zip(rows.tolist(), self.meter.buffers, strict=False):
            if ending is None and self.guard.rewound == rewound:  # what follows was its fault
                ending = self.settle(loss, norm, verdict, buffers)
        self.refusals.forget()
        return ending

    def standing(self) -> dict[str, float]:
        """The record: the learning rate, refused steps and rewinds so far, the loss scale if any."""
        values = {"lr": self.optimizer.param_groups[0]["lr"]}
        values |= {"guard/skipped": self.guard.skipped, "guard/rewound": self.guard.rewound}
        return values if self.scaler is None else values | self.scaler.values()

    def settle(self, loss: float, norm: float, verdict: float, buffers: float) -> Ending | None:
        """Lets the guard count the step; returns how the run ends, if it does.

        Args:
            loss: of the step.
            norm: of the gradient.
            verdict: 0 for a step that was committed, 1 where the guard has refused it, `OVERFLOWED`.
            buffers: the largest entry of the model's buffers; 0 without any.
        """
        if verdict == OVERFLOWED and self.scaler is not None:
            self.scaler.overflows += 1
            self.refusals.settle(loss, norm, False, buffers)  # there is nothing to find out
            return None
        refused = bool(verdict)
        self.refusals.settle(loss, norm, refused, buffers)
        reason = self.guard.settle(loss, norm, refused, buffers)
        if not reason:
            return None
        if not (self.snapshots.taken and self.guard.rewind()):
            return Ending("diverged", reason)
        with self.schedule.unmoved():
            self.snapshots.restore()
        follow_layout(self.optimizer)  # one resumed from a file may lie as it did there
        if self.guard.reset_momentum:
            self.optimizer.state.clear()
        return None

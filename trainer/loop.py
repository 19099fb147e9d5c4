"""The training loop."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from trainer import checks
from trainer.checkpoint import Checkpoints
from trainer.clipping import Clip, Clipped, NoClip
from trainer.computing import check_together, computed, modules_of
from trainer.data.tensors import Batch, Data
from trainer.diagnostics import Anomaly, Detector, Diagnostics
from trainer.distributed.cutting import check_cut
from trainer.distributed.processes import Processes
from trainer.evaluation import Loss, evaluate
from trainer.fitting import put
from trainer.gradients import Gradients
from trainer.guard import Guard, Skip
from trainer.ledger import Ledger
from trainer.precision import Precision
from trainer.record import Record, View
from trainer.refusals import Refusals
from trainer.rng import rng_state, seed_first, set_rng_state
from trainer.scaler import Scaler
from trainer.schedulers import Horizon, Schedule
from trainer.signals import StopSignals
from trainer.snapshot import Snapshots
from trainer.summary import Ending, statistics
from trainer.transaction import Transaction


class Trainer:
    """Trains a model so that a bad step is never committed.

    A run is this, and nothing else happens in it::

        for epoch in epochs:
            for batches in the epoch's order:        # a pure function of (seed, epoch, step)
                copy the buffers aside
                forward, backward, unscale           # `accumulate` batches
                measure the gradient norm            # before anything touches the gradients
                judge                                # scaler and guard: is this step to happen?
                clip, commit                         # or roll back: not a bit has changed
                schedule                             # where it moves by steps
                note loss and norms                  # as tensors, read every `log_every` steps
                record, validate, checkpoint         # when due, between two steps

    Args:
        model: takes the inputs of a batch, returns predictions.
        loss: ``(predictions, targets)`` to a scalar, or to ``(scalar, {term: scalar})``; the mean over
            the batch, so that accumulated batches weigh by their size.
        optimizer: over the parameters of the model (and of the loss, if it has any).
        clip: a mode of `trainer.clipping`; None measures the norm and changes nothing.
        scheduler: a `Schedule`, or any torch scheduler, which then moves once an epoch.
        guard: a policy of `trainer.guard`; None is `Skip`.
        checkpoints: when to save; None is `Checkpoints()`. Without a run folder nothing is.
        objective: the tag that the run is judged by; None is the data's first metric, or val/loss.
        max_epochs, max_steps: the run ends after so many of either, >= 1; None for no such end.
        log_every: steps between two lines of the record, >= 1.
        accumulate: batches per optimizer step, >= 1.
        device: "auto", "cpu", "cuda" or "cuda:<n>".
        precision: "fp64", "fp32", "bf16" or "fp16"; the last two are autocast, see `trainer.precision`.
        compile: run the model through `torch.compile`; a text names its backend, see `computed`.
        checkpoint_activations: compute them again on the way back instead of keeping them.
        channels_last: lay images out so that the channels of a pixel lie together.
        detect_anomaly: look at every operation, slowly; a NaN or inf ends the run, its origin named.
        refusals: which refused steps to keep in the run folder; None is `Refusals()`.
        diagnostics: what to measure inside the model; None is nothing.
        processes: that each take a part of every batch; None is this one alone.
        seed: of everything drawn while training (dropout).

    Raises: ValueError for an argument out of range."""

    epoch = batch = step = 0
    log_due = False
    ending: Ending | None = None

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        optimizer: Optimizer,
        *,
        clip: Clip | None = None,
        scheduler: Schedule | LRScheduler | None = None,
        guard: Guard | None = None,
        checkpoints: Checkpoints | None = None,
        refusals: Refusals | None = None,
        diagnostics: Diagnostics | None = None,
        processes: Processes | None = None,
        objective: str | None = None,
        max_epochs: int | None = 10,
        max_steps: int | None = None,
        log_every: int = 20,
        accumulate: int = 1,
        device: str = "auto",
        precision: str = "fp32",
        compile: bool | str = False,
        checkpoint_activations: bool = False,
        channels_last: bool = False,
        detect_anomaly: bool = False,
        seed: int = 0,
    ) -> None:
        self.processes = processes or Processes()
        check_together(compile, precision, detect_anomaly, self.processes.size)
        self.device = self.processes.device(device)
        self.precision = Precision(precision, self.device)
        self.accumulate = checks.whole("accumulate", accumulate, at_least=1)
        self.log_every = checks.whole("log_every", log_every, at_least=1)
        self.seed = checks.whole("seed", seed)
        self.limits = (max_epochs, max_steps)
        Horizon.of(1, 1, *self.limits)
        self.runs_ahead = self.device.type != "cpu"  # of the host, until it reads a step's numbers
        self.model = model.to(self.device, self.precision.dtype)
        self.forward = computed(model, optimizer, compile, checkpoint_activations, channels_last)
        self.loss = loss.to(self.device, self.precision.dtype) if isinstance(loss, nn.Module) else loss
        self.optimizer = optimizer
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.clip: Clip = clip or NoClip()
        if hasattr(self.clip, "bind"):
            self.clip.bind(self.model, optimizer)
        self.guard: Guard = guard or Skip()
        self.scaler = scaler = Scaler.of(precision, self.device)
        self.schedule = Schedule.of(scheduler, optimizer)
        self.checkpoints, self.record = checkpoints or Checkpoints(), Record(objective)
        self.modules = modules_of(model=self.model, loss=loss)
        self.transaction = Transaction(self.modules.values(), optimizer)
        earlier = {**self.modules, "optimizer": optimizer, "clip": self.clip}
        self.snapshots = Snapshots(earlier, self.guard.budget)
        self.refusals = refusals or Refusals()
        self.ledger = Ledger(self.guard, self.snapshots, self.schedule, optimizer, self.refusals, scaler)
        self.meter, self.norms = self.ledger.meter, self.ledger.norms
        self.diagnostics = diagnostics or Diagnostics(layers=False, activations=False)
        self.diagnostics.bind(self.model, loss, self.parameters, bool(compile))
        check_cut(self.processes, self.forward, optimizer, self.clip, self.diagnostics)
        step = (self.forward, self.loss, self.parameters, self.precision, self.diagnostics.shares)
        self.gradients = Gradients(*step, Detector(self.model, loss) if detect_anomaly else None, scaler)

    def fit(self, data: Data, folder: Path | None = None, views: Sequence[View] = ()) -> dict[str, Any]:
        """Trains to the horizon, or until a signal or the guard ends the run.

        Args:
            data: what to train on.
            folder: the run folder, made if need be; None keeps the record in memory only.
            views: further places to show the record at: `TensorBoard(folder)`, `Console()`.

        Returns: the summary; with a folder it, the record and the last checkpoint are there afterwards.
        Raises: whatever model, loss or data raise; the summary then says ``failed``."""
        data = self.processes.own(data.to(self.device, self.precision.dtype))
        folder, views = (folder, views) if self.processes.leads else (None, ())
        horizon = Horizon.of(data.batches_per_epoch, self.accumulate, *self.limits)
        failure: BaseException | None = None
        with StopSignals() as signals:  # before there is a record: what has one ends with a summary
            self.record.open(data, folder, views, self.step)
            began, first = time.perf_counter(), self.step
            seed_first(self.seed, self.step)
            if not self.model.training:  # else modules that are frozen in evaluation mode stay so
                self.model.train()
            try:
                shared = self.gradients.shared(self.processes, self.step, self.snapshots)
                with self.processes.meeting.watching(), shared:
                    self.diagnostics.share(self.processes.sharding)
                    self.ledger.open(folder, self.modules, self.processes.sharding)
                    for batches in self._steps(data, horizon.steps):
                        self._step(batches, signals.received)
                        self.step, self.batch = self.step + 1, self.batch + len(batches)
                        self._between_steps(data, horizon, signals)
            except Anomaly as found:
                self.transaction.roll_back()  # so that the state is kept that it can be looked into with
                self.ending = Ending("failed", str(found))
            except BaseException as error:  # in the middle of a step: that state is not kept
                self.ending, failure = Ending.by_error(error), error
        return self._close(self.step - first, time.perf_counter() - began, failure)

    def _steps(self, data: Data, last: int) -> Iterator[list[Batch]]:
        """The batches of one optimizer step after another, from where the run stands."""
        while self.step < last and not self.ending:
            batches = data.batches(self.epoch, self.batch)
            while group := list(islice(batches, self.accumulate)):
                self.log_due = (self.step + 1) % self.log_every == 0 or self.step + 1 == last
                yield group
                if self.step >= last or self.ending:
                    return
            if self.batch:  # or it would ask for the rest of this epoch for ever
                raise ValueError(f"batches_per_epoch must be how many data yields, {self.batch}")

    def _step(self, batches: Sequence[Batch], signal: int | None = None) -> None:
        """One step as a transaction."""
        self.processes.seed(self.seed, self.step)
        self.refusals.begin(batches, self.step + 1, self.epoch, self.batch)
        self.transaction.begin()
        with self.diagnostics.forward(self.log_due):
            loss, terms, gradients = self.gradients(batches, self.diagnostics.sampling)
        measured = self.transaction.measure(gradients, self.clip.norm_type)
        loss, terms, norm, buffers = self.processes.agreed(loss, terms, *measured, signal)
        refused = self.ledger.judge(loss, norm, buffers)
        self.diagnostics.before_commit()
        if isinstance(refused, Tensor):  # on a device, and nobody waits for it
            clipped = self.clip(gradients, norm.masked_fill(refused, math.nan))
            self.transaction.commit(gradients, clipped, self.guard.lr_factor, refused)
        elif refused:
            clipped = Clipped()
            self.transaction.roll_back()
            self.gradients.shares.forget()
        else:
            clipped = self.clip(gradients, norm)
            self.transaction.commit(gradients, clipped, self.guard.lr_factor)
        self.processes.even_out(batches, self.transaction)
        self.diagnostics.after_commit(norm, clipped, refused)
        self.schedule.step_ended()
        self.ending = self.ledger.enter(loss, norm, clipped, refused, terms, buffers, self.runs_ahead)

    def _between_steps(self, data: Data, horizon: Horizon, signals: StopSignals) -> None:
        """Everything that is due after a step: record, validate, schedule, snapshot, checkpoint."""
        epoch_ends = self.batch >= data.batches_per_epoch
        values: dict[str, float] = {}
        one_clock = self.processes.size == 1 or self.log_due  # or some would read what others do not
        saves = self.processes.led(self.checkpoints.due(self.step, one_clock), one_clock)
        remembers = self.step % (self.guard.snapshot_every or math.inf) == 0
        if self.log_due or saves or remembers or self.ending:
            self.ending = self.ledger.read(self.runs_ahead, self.ending)
        if self.log_due or self.ending:
            values = self.meter.interval() | self.ledger.standing()
            values |= self.gradients.shares.read()
            values |= self.diagnostics.read(self.step, values, self.record)
        if (epoch_ends or self.step == horizon.steps) and not self.ending:
            values |= self._validate(data)
        if values:
            self.record.write(self.step, self.epoch + 1, values)
        if epoch_ends and not self.ending:
            self.schedule.epoch_ended(self.record.last)
            self.epoch, self.batch = self.epoch + 1, 0
        if (signal := self.processes.signal(signals.received, self.log_due)) and not self.ending:
            self.ending = Ending.by_signal(signal)
        if remembers and not self.guard.consecutive:
            self.snapshots.take()
        if saves and not self.ending:
            self._save()

    def _validate(self, data: Data) -> dict[str, float]:
        settings = (data.metrics, self.precision.autocast, self.processes.added)
        with self.processes.gathered():
            values = evaluate(self.forward, self.loss, data.validation(), *settings)
        return {f"val/{name}": value for name, value in values.items()}

    def _save(self) -> None:
        folder, shards = self.record.folder, self.processes.shards
        if (folder or shards) and self.processes.finite(self.parameters):  # or good ones would go
            state = self.state_dict()
            if folder is not None:
                self.checkpoints.save(folder, self.step, state, self.record.score)

    def _close(self, steps: int, seconds: float, failure: BaseException | None = None) -> dict[str, Any]:
        """Leaves the last checkpoint and the summary in the folder; raises what went wrong first."""
        ending = self.ending or Ending("completed")
        try:
            if failure is None:
                self._save()
        except OSError as full:
            failure, ending = full, Ending.by_error(full)
        summary = {
            **ending.summary(self.step, self.epoch + (self.batch > 0), seconds, steps),
            **self.record.summary(diverged=ending.status == "diverged"),
            **statistics(self.norms, self.clip, self.guard, self.diagnostics, self.scaler),
            "seed": self.seed,
        }
        self.refusals.close()
        try:
            self.record.close(summary)
        finally:
            if failure is not None:  # and what went wrong after it is not told
                raise failure
        return summary

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on; data has no state."""
        self.ending = self.ledger.read(self.runs_ahead, self.ending)
        parts = {name: part.state_dict() for name, part in self._stateful().items()}
        counters = {"step": self.step, "epoch": self.epoch, "batch": self.batch}
        return self.processes.state(parts | {"counters": counters, "rng": rng_state(self.device)})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts the run where ``state`` was taken; the next step is then bit for bit the same. Raises
        ValueError or RuntimeError, naming what does not fit."""
        put(state, self._stateful())
        vars(self).update({name: state["counters"][name] for name in ("step", "epoch", "batch")})
        set_rng_state(self.device, state["rng"])

    def _stateful(self) -> dict[str, Any]:
        """Every part that has a state, by name; ``forward`` is the model once more."""
        return {n: p for n, p in vars(self).items() if hasattr(p, "state_dict") and n != "forward"}

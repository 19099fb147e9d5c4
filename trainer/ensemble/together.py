"""K runs trained as one, each as though it were alone."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from itertools import islice
from typing import Any

import torch

from trainer.data.tensors import Batch, each
from trainer.ensemble.looking import Looking
from trainer.ensemble.member import Member
from trainer.ensemble.ordinary import Ordinary
from trainer.ensemble.run import Common, Run
from trainer.ensemble.stack import Stack
from trainer.ensemble.updates import Updates
from trainer.ensemble.validation import evaluate_stack
from trainer.loop import Trainer
from trainer.rng import rng_state, seed_everything, set_rng_state
from trainer.schedulers import Horizon
from trainer.signals import StopSignals
from trainer.summary import Ending


class Together:
    """Trains runs that are alike but for numbers (see `trainer.ensemble.alike`) in lockstep.

    Only forward and backward pass, norms and Adam's update are common; everything else a run does
    itself, by the code that it does it with alone::

        for batches in the common order:
            copy the buffers aside, forward, backward, norms     # one pass for all
            for run in runs that have not ended:
                judge, clip, commit or roll back, schedule, note # `Trainer._step`
            apply the commits                                    # few calls
            record, validate, checkpoint, each where it is due

    A run that ends before the others, because it diverged, is closed at once and counts no more.

    Args:
        runs: at least one; their trainers stand at the same step.
        ended: called with each run as soon as it has its summary or its error.
    """

    def __init__(self, runs: Sequence[Run], ended: Callable[[Run], None] = lambda run: None) -> None:
        self.ended = ended
        for run in runs:
            run.data = run.data.to(run.trainer.device, run.trainer.precision.dtype)
            if not run.trainer.model.training:
                run.trainer.model.train()
        first = runs[0].trainer
        self.accumulate, self.log_every = first.accumulate, first.log_every
        self.sources = list({id(run.data): run.data for run in runs}.values())
        self.axis = None if len(self.sources) == 1 else 0
        self.per_epoch = self.sources[0].batches_per_epoch
        self.horizon = Horizon.of(self.per_epoch, self.accumulate, *first.limits)
        self._join(runs)

    def _join(self, runs: Sequence[Run]) -> None:
        self.going = dict(enumerate(runs))
        trainers = [run.trainer for run in runs]
        order = {id(data): number for number, data in enumerate(self.sources)}
        self.source_of = [order[id(run.data)] for run in runs]
        self.stack = Stack(trainers)
        self.updates = Updates(self.stack, trainers)
        self.common = Common(self.stack, self.updates)
        self.members = [Member(trainer, k, self.common) for k, trainer in enumerate(trainers)]
        self.norm_types = {trainer.clip.norm_type for trainer in trainers}
        self.ordinary = Ordinary(self.going, self.updates)
        self.looking = Looking(self.going, self.stack)
        every = [(trainer.guard.snapshot_every, trainer.checkpoints.every_steps) for trainer in trainers]
        self.intervals = {steps for pair in every for steps in pair if steps}
        self.saves_at = min(trainer.checkpoints.due_at for trainer in trainers)

    def fit(self) -> None:
        """Trains all to the horizon, or until a signal ends them; each then has its summary or error.

        Raises:
            Exception: whatever a common pass raises. The runs that have not ended are then apart again,
                each at the end of the same step, and `Trainer.fit` continues them.
        """
        self.began, self.first = time.perf_counter(), self._head.step
        seeds = {run.trainer.seed for run in self.going.values()}
        self.shares_generators = len(seeds) == 1
        seed_everything(self._head.seed)
        if generators := next(iter(self.going.values())).generators:
            set_rng_state(self._head.device, dict(generators))
        try:
            with StopSignals() as signals:  # before there are records: what has one ends with a summary
                for run in self.going.values():
                    trainer = run.trainer
                    trainer.record.open(run.data, run.folder, run.views, trainer.step)
                    trainer.ledger.open(run.folder, trainer.modules)
                for batches in self._steps():
                    self._step(batches)
                    self._between_steps(len(batches), signals)
                    if 2 * len(self.going) <= len(self.members) and self.going:
                        self.part()
                        self._join(list(self.going.values()))
        except (Exception, SystemExit):
            self.stack.roll_back()
            self.part()
            raise
        except BaseException as error:
            for k, run in list(self.going.items()):
                self._failed(k, run, error)
            raise

    def first_batches(self) -> list[Batch]:
        """Those of the next step."""
        return next(self._steps())

    @property
    def _head(self) -> Trainer:
        return next(iter(self.going.values())).trainer

    def _steps(self) -> Iterator[list[Batch]]:
        """The batches of one step after another, with a member axis where the data differ."""
        while self.going:
            head = self._head
            orders = [source.batches(head.epoch, head.batch) for source in self.sources]
            while self.going and (step := list(islice(zip(*orders, strict=True), self.accumulate))):
                ahead = self._head.step + 1
                self.log_due = ahead % self.log_every == 0 or ahead == self.horizon.steps
                yield [self._joined(batches) for batches in step]
            if self.going and self._head.batch:  # or it would ask for the rest of this epoch for ever
                raise ValueError(f"batches_per_epoch must be how many data yields, {self._head.batch}")

    def _joined(self, batches: Sequence[Batch]) -> Batch:
        if self.axis is None:
            return batches[0]
        joined: Batch = stacked([batches[source] for source in self.source_of])
        return joined

    def _step(self, batches: Sequence[Batch]) -> None:
        self.calm = False
        looks = self.log_due and self.looking.due
        if looks and not (self.looking.possible and self.ordinary.possible):
            self._step_apart(batches)
            return
        stack, before = self.stack, torch.get_rng_state()
        stack.begin()
        with self.looking.watching() if looks else nullcontext():
            means = stack(batches, self.axis)
        norms = {norm_type: stack.norms(norm_type) for norm_type in self.norm_types}
        largest = stack.largest_buffers()
        self.calm = self.ordinary.take(means, norms, largest)
        if self.calm:
            for run in self.going.values() if self.log_due else ():
                run.trainer.diagnostics.forward(due=True)
            if looks:
                self.looking.before()
        elif looks:  # so far nothing was touched: there are no buffers here, and no generators
            self._step_apart(batches)
            return
        else:
            self.ordinary.flush()
            common, after = self.common, torch.get_rng_state()
            common.means = {name: values.unbind() for name, values in means.items()}
            common.norms = {norm_type: values.unbind() for norm_type, values in norms.items()}
            common.largest = None if largest is None else largest.unbind()
            torch.set_rng_state(before)  # a refused step is kept with the generators before it
            for k, run in list(self.going.items()):
                self._step_of(k, run, batches)
            torch.set_rng_state(after)
        self.updates.apply()
        if looks:
            self.looking.after(torch.from_numpy(self.ordinary.norms))

    def _step_apart(self, batches: Sequence[Batch]) -> None:
        """A step that each takes wholly by itself, because something looks into the model meanwhile."""
        self.ordinary.flush()
        device = self._head.device
        before = rng_state(device)
        for k, run in list(self.going.items()):
            set_rng_state(device, before)
            self.members[k].step_out(run.trainer)
            self._step_of(k, run, batches)
            if k in self.going:
                self.members[k].step_in(run.trainer)

    def _step_of(self, k: int, run: Run, batches: Sequence[Batch]) -> None:
        run.trainer.log_due = self.log_due
        if self.axis is not None:
            batches = [each(lambda values: values[k], batch) for batch in batches]
        try:
            run.trainer._step(batches)
        except (Exception, SystemExit) as error:  # whatever a user's part does, sys.exit() included
            self._failed(k, run, error)

    def _between_steps(self, batches: int, signals: StopSignals) -> None:
        for run in self.going.values():
            run.trainer.step += 1
            run.trainer.batch += batches
        if not self.going:
            return
        head, last = self._head, self._head.step == self.horizon.steps
        ends = last or head.batch >= self.per_epoch
        if not (ends or self.log_due or signals.received or self._is_due(head.step)):
            return
        self.ordinary.flush()
        if ends:
            self.common.validated = self._validated()
        if time.monotonic() >= self.saves_at:  # one's clock for all: saved apart, they resume apart
            for run in self.going.values():
                run.trainer.checkpoints.saved_at = -math.inf
        for k, run in list(self.going.items()):
            run.trainer.log_due = self.log_due
            if not self.shares_generators:  # nobody draws from them, but they are part of the state
                seed_everything(run.trainer.seed)
            try:
                run.trainer._between_steps(run.data, self.horizon, signals)
                if last or run.trainer.ending:
                    self._close(k)
            except Exception as error:
                self._failed(k, run, error)
        clocks = (run.trainer.checkpoints.due_at for run in self.going.values())
        self.saves_at = min(clocks, default=0.0)

    def _is_due(self, step: int) -> bool:
        """Whether a run has anything to do after this step that the others may not have."""
        return (
            any(step % every == 0 for every in self.intervals)
            or time.monotonic() >= self.saves_at
            or (not self.calm and any(run.trainer.ending for run in self.going.values()))
        )

    def _validated(self) -> Sequence[dict[str, float]] | None:
        """Loss and metrics of all members; None where each has to validate by itself."""
        if self.axis is not None:
            return None
        try:
            return evaluate_stack(self.stack, self.sources[0])
        except Exception:  # which each of them will meet again
            return None

    def _close(self, k: int) -> None:
        run = self.going.pop(k)
        self._leave(k, run)
        run.summary = run.trainer._close(run.trainer.step - self.first, self._seconds)
        self.ended(run)

    def _failed(self, k: int, run: Run, error: BaseException) -> None:
        """What `Trainer.fit` does where anything raises, unless it was the closing itself."""
        run.error = error if isinstance(error, Exception | SystemExit) else None
        if self.going.pop(k, None):
            self._leave(k, run)
            run.trainer.ending = Ending.by_error(error)
            with suppress(type(error)):  # raised again, for those who have one run only
                run.trainer._close(run.trainer.step - self.first, self._seconds, error)
        if run.error is not None:
            self.ended(run)

    @property
    def _seconds(self) -> float:
        return time.perf_counter() - self.began

    def part(self) -> None:
        """Gives the runs that have not ended what is theirs; the stack is of no use afterwards."""
        self.ordinary.flush()
        for k, run in self.going.items():
            self.members[k].leave(run.trainer)

    def _leave(self, k: int, run: Run) -> None:
        self.ordinary.flush()
        self.ordinary = Ordinary(self.going, self.updates)
        self.members[k].leave(run.trainer)


def stacked(values: Sequence[Any]) -> Any:
    """Tensors as one with a member axis, and tuples of them as a tuple."""
    if isinstance(values[0], tuple):
        return tuple(map(stacked, zip(*values, strict=True)))
    return torch.stack(list(values))

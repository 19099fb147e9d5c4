"""Forward and backward: the gradient of the mean loss over the batches of one step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from trainer.data.parts import samples_of
from trainer.data.tensors import Batch
from trainer.diagnostics.anomaly import Detector
from trainer.distributed.processes import Processes
from trainer.evaluation import Loss, split_loss
from trainer.precision import Precision
from trainer.scaler import Scaler
from trainer.shares import Shares
from trainer.shortcuts import backward
from trainer.snapshot import Snapshots


class Gradients:
    """Leaves the gradient of the mean loss over all samples of some batches in ``.grad``.

    Args:
        forward: the model, or its compiled form.
        loss: the mean over a batch; batches weigh by their samples.
        parameters: what is trained.
        precision: in which the forward pass runs.
        with_shares: whether `shares` is to take in what each term of the loss adds to the gradient.
        detector: looks at every operation, and is slow; None for none.
        scaler: of a precision that needs one; None for none.

    Raises:
        Anomaly: in a call, where there is a detector and loss or gradient are not finite.
    """

    def __init__(
        self,
        forward: nn.Module,
        loss: Loss,
        parameters: Sequence[Tensor],
        precision: Precision,
        with_shares: bool = False,
        detector: Detector | None = None,
        scaler: Scaler | None = None,
    ) -> None:
        self.forward, self.loss, self.precision = forward, loss, precision
        self.parameters = parameters
        self.processes = Processes()
        self.shares = Shares(parameters, with_shares)
        beside = loss.parameters() if isinstance(loss, nn.Module) else ()
        self.of_the_loss = [parameter for parameter in beside if parameter.requires_grad]
        self.detector, self.scaler = detector, scaler

    @contextmanager
    def shared(self, processes: Processes, step: int, snapshots: Snapshots) -> Iterator[None]:
        """Inside, the gradients are those of all processes.

        Args:
            processes: that have the other parts of the batches.
            step: where the run stands.
            snapshots: as for `Processes.sharing`.
        """
        alone = self.forward
        self.processes, self.shares.averaged = processes, processes.meeting.averaged
        try:
            with processes.sharing(alone, step, snapshots) as self.forward:
                yield
        finally:
            self.forward = alone

    def __call__(
        self, batches: Sequence[Batch], log_due: bool = False
    ) -> tuple[Tensor, Mapping[str, Tensor], list[Tensor]]:
        """The loss, its terms by name, both detached means, and the gradients that there are.

        Args:
            batches: of one step.
            log_due: whether the step is recorded, so that the shares are asked for.
        """
        if self.detector is None:
            return self._accumulated(batches, log_due)
        with self.detector:
            loss, terms, gradients = self._accumulated(batches, log_due)
        if anomaly := self.detector.anomaly(loss, gradients):
            raise anomaly
        return loss, terms, gradients

    def _accumulated(
        self, batches: Sequence[Batch], log_due: bool
    ) -> tuple[Tensor, Mapping[str, Tensor], list[Tensor]]:
        for parameter in self.parameters:
            parameter.grad = None
        samples, parts = sum(map(samples_of, batches)), self.processes.size
        means: dict[str, Tensor] = {}
        for number, batch in enumerate(batches, 1):
            inputs, targets = batch
            with self.processes.alone(self.forward, more=number < len(batches)):
                with self.precision.autocast():
                    loss, terms = split_loss(self.loss(self.forward(inputs), targets))
                scaled = loss if self.scaler is None else self.scaler.up(loss, parts)
                if log_due and self.shares.wanted:
                    size = samples_of(batch)
                    self.shares.add(scaled, terms, size / samples, len(inputs) / size)
                values = {"": loss.detach(), **{name: term.detach() for name, term in terms.items()}}
                share = len(inputs) / samples
                if share == 1:  # multiplying by one would cost every step two kernels
                    backward(scaled)
                    means = values
                else:
                    backward(scaled * share)
                    means = {name: v * share + means.get(name, 0.0) for name, v in values.items()}
        # Those of the model are those of all processes by now, but what each has whole beside parts.
        sharding = self.processes.sharding
        if sharding is not None:
            sharding.take_gradients()
        apart = self.of_the_loss if sharding is None else sharding.whole
        own = [parameter.grad for parameter in apart if parameter.grad is not None]
        for gradient, mean in zip(own, self.processes.meeting.averaged(own), strict=True):
            gradient.copy_(mean)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        if sharding is not None:
            gradients = sharding.rows(gradients, [p for p in self.parameters if p.grad is not None])
        if self.scaler is not None:
            self.scaler.down(gradients, parts)
        return means.pop(""), means, gradients

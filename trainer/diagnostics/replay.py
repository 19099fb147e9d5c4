"""Why a step was refused: its batch, the state it was taken in, or neither."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from trainer.clipping import total_norm
from trainer.data.tensors import Batch, each
from trainer.diagnostics.anomaly import Anomaly, Detector, Origin
from trainer.diagnostics.layers import by_prefix
from trainer.evaluation import Loss, split_loss
from trainer.gradients import Gradients
from trainer.precision import Precision
from trainer.scaler import Scaler
from trainer.snapshot import copied
from trainer.wording import count, number

DATA, STATE, NEITHER = "data", "state", "not reproducible"
STANDS_OUT = 5  # times the median of the samples' gradient norms
SHOWN = 3

Judge = Callable[[Tensor, Tensor, Tensor | None], Tensor | bool]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a replay found.

    Attributes:
        kind: "data", "state" or "not reproducible".
        loss: of the replayed step.
        norm: of its gradient.
        origin: the first operation that gave NaN or inf; None where all is finite or none was seen.
        samples: numbers of the samples, counted over the step's batches, that it is put down to.
        tensors: names of the parameters and buffers that hold NaN or inf.
        lines: all of this in words.
    """

    kind: str
    loss: float
    norm: float
    origin: Origin | None = None
    samples: list[int] = field(default_factory=list)
    tensors: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)


IN_ORDER = (
    "all is in order this time: it is neither in the batch nor in the weights. Look for numbers drawn "
    "outside of torch, code that counts its calls, a race, or the hardware"
)


def not_finite(loss: Tensor, norm: Tensor, buffers: Tensor | None) -> bool:
    """Whether a step has to be refused, whatever came before it."""
    found = [value for value in (loss, norm, buffers) if value is not None]
    return not all(value.isfinite().item() for value in found)


def replay(
    model: nn.Module,
    loss: Loss,
    batches: Sequence[Batch],
    others: Sequence[Sequence[Batch]] = (),
    earlier: Mapping[str, Any] | None = None,
    refuses: Judge = not_finite,
    norm_type: float = 2.0,
    precision: Precision | None = None,
    scaler: Scaler | None = None,
) -> Verdict:
    """Takes a step again, short of committing it, and says what it is to be put down to.

    It is *not reproducible* where the step is sound now; else it is the *state* if all other batches are
    refused too, and the *data* if not. Parameters, buffers and modes stay as they are; ``.grad``
    does not.

    Args:
        model: in the state before the step.
        loss: likewise, if it has any.
        batches: of the step.
        others: the batches of other steps.
        earlier: an earlier ``state_dict`` of the model, to try the same batches with.
        refuses: ``(loss, gradient norm, largest buffer) -> bool``, what is held against a step.
        norm_type: of the gradient norm.
        precision: of the forward pass; None is that of the model.
        scaler: of the way back, as it was before the step; None for none.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(1, 1))
        >>> inputs = torch.tensor([[1.0], [float("nan")]])
        >>> good = (torch.ones(2, 1), torch.zeros(2, 1))
        >>> verdict = replay(model, torch.nn.MSELoss(), [(inputs, torch.zeros(2, 1))], [[good]])
        >>> verdict.kind, verdict.samples, str(verdict.origin)
        ('data', [1], 'linear in 0 (Linear) was given NaN, which came in with the batch')
    """
    precision = precision or Precision("fp32", torch.device("cpu"))
    bench = _Bench(model, loss, refuses, norm_type, precision, scaler)
    value, norm, bad, anomaly = bench.attempt(batches)
    if not bad:
        return Verdict(NEITHER, value, norm, lines=[_figures(value, norm), IN_ORDER])
    failing = sum(bench.attempt(other)[2] for other in others)
    again = None
    finite = math.isfinite(value) and math.isfinite(norm)
    if earlier is not None and not finite:  # a spike is one by what other weights do not know
        with _state(model, earlier):
            again = bench.attempt(batches)[2]
    is_data = failing < len(others) if others else bool(again)
    tensors = bench.not_finite()
    samples, words = bench.samples(batches) if is_data else ([], [])
    lines = [str(anomaly) if anomaly else f"refused again: {_figures(value, norm)}", *words]
    if not is_data:
        lines += [f"{name} holds NaN or inf" for name in tensors[:SHOWN]] or [bench.largest()]
    if others:
        steps = count(len(others), "other step")
        lines.append(f"with these weights {failing} of {steps} is refused too")
    if again is not None:
        lines.append(f"with earlier weights the same batch is {'refused too' if again else 'in order'}")
    origin = anomaly.origin if anomaly else None
    return Verdict(DATA if is_data else STATE, value, norm, origin, samples, tensors, lines)


class _Bench:
    """Model and loss, to take steps with that leave no trace but ``.grad``."""

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        refuses: Judge,
        norm_type: float,
        precision: Precision,
        scaler: Scaler | None,
    ) -> None:
        self.model, self.loss, self.refuses, self.norm_type = model, loss, refuses, norm_type
        self.precision = precision
        self.parts = by_prefix(model, loss)
        self.trained = [p for part in self.parts.values() for p in part.parameters() if p.requires_grad]
        self.scaler = scaler
        self.gradients = Gradients(model, loss, self.trained, precision, scaler=scaler)

    def attempt(self, batches: Sequence[Batch]) -> tuple[float, float, bool, Anomaly | None]:
        """Loss, gradient norm, whether the step is refused, and where a NaN or inf comes from."""
        buffers = [buffer for part in self.parts.values() for buffer in part.buffers()]
        saved = [buffer.clone() for buffer in buffers]
        watched = [b for b in buffers if b.is_floating_point() and b.isfinite().all()]
        try:
            with (detector := Detector(self.model, self.loss)):
                loss, _, gradients = self.gradients(batches)
            norm = total_norm(gradients, self.norm_type)
            largest = total_norm(watched, math.inf) if watched else None
            bad = bool(self.refuses(loss, norm, largest))
            return loss.item(), norm.item(), bad, detector.anomaly(loss, gradients)
        finally:
            for buffer, then in zip(buffers, saved, strict=True):
                buffer.copy_(then)

    def samples(self, batches: Sequence[Batch]) -> tuple[list[int], list[str]]:
        """The samples that stand out, and why: by what they hold, or by their own gradient."""
        norms: list[Tensor] = []
        losses: list[Tensor] = []
        faulty: dict[int, str] = {}
        with _alone(*self.parts.values()):
            for inputs, targets in batches:
                for row in range(len(inputs)):
                    one = each(itemgetter(slice(row, row + 1)), (inputs, targets))
                    tensors = [one[0], *(one[1] if isinstance(one[1], tuple) else [one[1]])]
                    if not all(tensor.isfinite().all() for tensor in tensors):
                        faulty[len(norms)] = "input" if not one[0].isfinite().all() else "target"
                    with self.precision.autocast():
                        loss, _ = split_loss(self.loss(self.model(one[0]), one[1]))
                    scaled = loss if self.scaler is None else self.scaler.up(loss)
                    every = torch.autograd.grad(scaled, self.trained, allow_unused=True)
                    found = [gradient for gradient in every if gradient is not None]
                    if self.scaler is not None:
                        self.scaler.down(found)
                    norms.append(total_norm(found))
                    losses.append(loss.detach())
        norm, loss = torch.stack(norms).double().cpu(), torch.stack(losses).double().cpu()
        bad = ~(norm.isfinite() & loss.isfinite())
        out = [*faulty, *torch.nonzero(bad).flatten().tolist()]
        if not out:
            out = torch.nonzero(norm > STANDS_OUT * norm.median()).flatten().tolist()
        out = sorted(set(out), key=lambda row: (row not in faulty, not bad[row], -norm[row]))
        lines = [
            f"sample {row} of {len(norm)}: {_holds(faulty.get(row))}alone, "
            f"{_figures(loss[row].item(), norm[row].item())}"
            for row in out[:SHOWN]
        ]
        if len(out) > SHOWN:
            lines.append(f"and {count(len(out) - SHOWN, 'more sample')}")
        return out, lines or [f"none of the {len(norm)} samples stands out: it is all of the batch"]

    def not_finite(self) -> list[str]:
        """Parameters and buffers that hold NaN or inf; a buffer of -inf may be a mask."""
        return [name for name, t in self._named() if (t.isnan() | (t == torch.inf)).any()]

    def largest(self) -> str:
        """Where the largest number of the state is."""
        sizes = {name: tensor.abs().max().item() for name, tensor in self._named() if tensor.numel()}
        name = max(sizes, key=sizes.__getitem__)
        return f"all weights are finite; the largest number is {number(sizes[name])}, in {name}"

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        for prefix, part in self.parts.items():
            yield from part.named_parameters(prefix)
            yield from part.named_buffers(prefix)


@contextmanager
def _state(model: nn.Module, state: Mapping[str, Any]) -> Iterator[None]:
    now = copied(model.state_dict())
    model.load_state_dict(state)
    try:
        yield
    finally:
        model.load_state_dict(now)


@contextmanager
def _alone(*parts: nn.Module) -> Iterator[None]:
    """Evaluation mode, in which samples do not see each other, but for recurrent layers: cuDNN has no
    gradient for them there."""
    modes = [(module, module.training) for part in parts for module in part.modules()]
    for module, _ in modes:
        module.training = isinstance(module, nn.RNNBase)
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def _holds(what: str | None) -> str:
    return f"its {what} holds NaN or inf; " if what else ""


def _figures(loss: float, norm: float) -> str:
    return f"the loss is {loss:.4g}, its gradient norm {norm:.4g}"

"""Whether backpropagation returns the derivative of the loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.data.tensors import Batch, seeded_generator
from trainer.diagnostics.finding import MOST_FAILURES, Check, Failure, index_of
from trainer.diagnostics.purity import overwritten
from trainer.diagnostics.scratch import copied, named_parameters, scratch
from trainer.evaluation import Loss, split_loss

EPS = torch.finfo(torch.float64).eps
ROUNDING = 8 * EPS  # of a loss of 1
STEPS = (1e-5, 1e-6, 1e-5, 1e-6, 1e-7)  # h, each about another point
SHARE = 0.01  # of a tensor's largest entry: the error of a smaller one counts in units of that
MORE = 16  # entries looked at where only a direction fails, to name one


@dataclass(slots=True)
class Probe:
    """A direction in which the slope of the loss is measured, and what was found.

    Attributes:
        name: of the parameter.
        parameter: the tensor itself.
        place: of the entry in the flattened tensor; None for a direction over all of it.
        analytic: the slope by backpropagation.
        numeric: the slope by central differences.
        error: of the one against the other, the least of all points.
    """

    name: str
    parameter: Tensor
    place: int | None
    analytic: float = 0.0
    numeric: float = 0.0
    error: float = math.inf


def check_gradients(
    model: nn.Module,
    loss: Loss,
    batch: Batch,
    *,
    coordinates: int = 2,
    tolerance: float = 1e-5,
    seed: int = 0,
) -> Check:
    """|a − n| / max(|a|, |n|, floor) < tolerance for each parameter, in float64: a by autograd,
    n = (f(θ + hv) − f(θ − hv)) / 2h.

    For each tensor v is one direction over all of it, half along the gradient and half at random, the
    entry of the largest gradient, and some at random. Dropout repeats its masks, and buffers are put
    back before each pass. θ is a little off the weights, by 1 % of their size: there a zero-initialised
    layer lets gradients through, and a ReLU's kink does not lie on the very point. With a kink within h
    the quotient is no derivative, so a probe that fails is tried again about other points and with
    shorter steps; it counts by the best of them, which a wrong gradient fails all the same. The floor
    keeps the rounding of f, 2e-15·|f|/h, from counting as an error.

    What a module names in ``own_gradient``, a tuple of names of its parameters, has on purpose a
    gradient that is not the derivative of the loss, and is left out.

    Args:
        model: takes the batch's inputs.
        loss: ``(predictions, targets)`` to a scalar, or to ``(scalar, {term: scalar})``.
        batch: a few samples, (inputs, targets).
        coordinates: entries of each tensor beside the direction, >= 1.
        tolerance: on the relative error.
        seed: of points and directions.

    Returns:
        The check; nothing of model and loss has changed.

    Example:
        >>> model = torch.nn.Linear(3, 2)
        >>> batch = torch.randn(4, 3), torch.randn(4, 2)
        >>> check_gradients(model, torch.nn.MSELoss(), batch).passed
        True
    """
    with scratch(model, loss, dtype=torch.float64):
        surface = _Surface(model, loss, copied(batch, torch.float64), seed)
        if (stopped := surface.first_look()) is not None:
            return Check("gradients", failures=(stopped,), limit=tolerance)
        own = _with_own_gradient(model, loss)
        named = {n: p for n, p in named_parameters(model, loss).items() if p.requires_grad}
        checked = {name: p for name, p in named.items() if id(p) not in own and p.numel()}
        probes = [q for name, p in checked.items() for q in surface.probes(name, p, coordinates)]
        failures = surface.failures(probes, tolerance)
    left_out = [name for name, parameter in named.items() if id(parameter) in own]
    return Check(
        "gradients",
        f"{len(checked)} tensors, {len(probes)} slopes",
        failures,
        max((probe.error for probe in probes), default=0.0),
        tolerance,
        (f"with a gradient of their own, not checked: {', '.join(left_out)}",) if left_out else (),
    )


class _Surface:
    """The loss over the parameters, about points close to where they are."""

    def __init__(self, model: nn.Module, loss: Loss, batch: Batch, seed: int) -> None:
        self.model, self.loss, self.batch, self.seed = model, loss, batch, seed
        modules = [part for part in (model, loss) if isinstance(part, nn.Module)]
        trained = (p for module in modules for p in module.parameters() if p.requires_grad)
        self.parameters = list({id(p): p for p in trained}.values())
        self.origin = [p.detach().clone() for p in self.parameters]
        tables = [inner._buffers for module in modules for inner in module.modules()]
        self.buffers = [(table, _cloned(table)) for table in tables]
        self.gradients: dict[int, Tensor] = {}

    def total(self) -> Tensor:
        """The loss, with the same dropout and the same buffers each time."""
        for table, saved in self.buffers:
            table.update(_cloned(saved))
        torch.manual_seed(self.seed)
        inputs, targets = copied(self.batch)
        return split_loss(self.loss(self.model(inputs), targets))[0]

    def first_look(self) -> Failure | None:
        """Why there is no slope to measure, if so."""
        try:
            found = self._repeats_and_is_finite()
            if found is None:
                self.move(0)
        except RuntimeError as error:
            return _unable(error, self)
        return found

    def _repeats_and_is_finite(self) -> Failure | None:
        with torch.no_grad():
            first, second = self.total().item(), self.total().item()
        if not math.isfinite(first):
            cause = "the check of extremes names the module where it begins"
            return Failure("loss", repr(first), "a finite number", cause)
        if first != second:
            cause = "no function of the weights; the check of determinism names the module"
            return Failure("loss", repr(second), f"{first!r} as in the pass before", cause)
        return None

    def move(self, number: int) -> None:
        """To the point of that number, and takes the gradient there."""
        for index, (parameter, origin) in enumerate(zip(self.parameters, self.origin, strict=True)):
            size = 0.01 * max(origin.abs().square().mean().sqrt().item(), 0.1)
            parameter.data.copy_(origin + size * self._noise(origin, number, index))
            parameter.grad = None
        self.total().backward()
        for p in self.parameters:
            found = torch.zeros_like(p) if p.grad is None else p.grad.to_dense()
            self.gradients[id(p)] = _flat(found)

    def probes(self, name: str, parameter: Tensor, coordinates: int) -> list[Probe]:
        """A direction, the entry of the largest gradient, and further entries."""
        slopes = self.gradients[id(parameter)]
        generator = seeded_generator(self.seed, len(slopes), len(name))
        drawn = torch.randint(len(slopes), (coordinates - 1,), generator=generator).tolist()
        entries = dict.fromkeys([int(slopes.abs().argmax()), *drawn])
        return [Probe(name, parameter, place) for place in (None, *entries)]

    def settle(self, probes: Sequence[Probe], tolerance: float) -> None:
        """Measures each probe, about one point after another until it agrees."""
        for number, step in enumerate(STEPS):
            left = [probe for probe in probes if not probe.error < tolerance]
            if left:
                self.move(number)
            for probe in left:
                self._measure(probe, step, number, tolerance)

    def failures(self, probes: Sequence[Probe], tolerance: float) -> tuple[Failure, ...]:
        """What does not agree, one a parameter; where only a direction fails, an entry is looked for."""
        self.settle(probes, tolerance)
        wrong = [probe for probe in probes if not probe.error < tolerance]
        entries = {probe.name for probe in wrong if probe.place is not None}
        for probe in [probe for probe in wrong if probe.name not in entries][:3]:
            more = self.probes(probe.name, probe.parameter, MORE)[1:]
            self.settle(more, tolerance)
            wrong += [entry for entry in more if not entry.error < tolerance]
        found: dict[str, Probe] = {}
        for probe in sorted(wrong, key=lambda probe: (probe.place is None, -probe.error)):
            found.setdefault(probe.name, probe)
        return tuple(map(_failure, [*found.values()][:MOST_FAILURES]))

    def _measure(self, probe: Probe, step: float, number: int, tolerance: float) -> None:
        slopes = self.gradients[id(probe.parameter)]
        direction = torch.zeros_like(slopes)
        if probe.place is None:
            noise = _flat(self._noise(probe.parameter, number, -1))
            direction = noise / noise.norm() + slopes / slopes.norm().clamp(min=1e-300)
            floor = SHARE * slopes.norm().item()
        else:
            direction[probe.place] = 1.0
            floor = SHARE * slopes.abs().max().item()
        ahead, behind = (self._value(probe.parameter, sign * step * direction) for sign in (1, -1))
        analytic, numeric = torch.dot(slopes, direction).item(), (ahead - behind) / (2 * step)
        blur = ROUNDING * max(abs(ahead), abs(behind)) / step / tolerance
        if number and blur > max(abs(analytic), abs(numeric)):
            return  # rounding hides everything at this step
        scale = max(abs(analytic), abs(numeric), floor, blur, 1e-300)
        error = abs(analytic - numeric) / scale
        if not error >= probe.error:
            probe.analytic, probe.numeric, probe.error = analytic, numeric, error

    @torch.no_grad()
    def _value(self, parameter: Tensor, shift: Tensor) -> float:
        """The loss with the parameter shifted."""
        home = parameter.data.clone()
        parameter.data.add_(_shaped(shift, parameter))
        value = self.total().item()
        parameter.data.copy_(home)
        return value

    def _noise(self, like: Tensor, *key: int) -> Tensor:
        generator = seeded_generator(self.seed, *key, like.numel())
        return torch.randn(like.shape, dtype=like.dtype, generator=generator).to(like.device)


def _cloned(buffers: Mapping[str, Tensor | None]) -> dict[str, Tensor | None]:
    return {name: None if buffer is None else buffer.clone() for name, buffer in buffers.items()}


def _flat(tensor: Tensor) -> Tensor:
    """Its entries in one axis, of a complex one the real and imaginary parts."""
    return (torch.view_as_real(tensor) if tensor.is_complex() else tensor).reshape(-1)


def _shaped(flat: Tensor, like: Tensor) -> Tensor:
    """What `_flat` made flat."""
    return (
        torch.view_as_complex(flat.view(*like.shape, 2)) if like.is_complex() else flat.view(like.shape)
    )


def _with_own_gradient(model: nn.Module, loss: Loss) -> set[int]:
    parts = [part for part in (model, loss) if isinstance(part, nn.Module)]
    modules = (module for part in parts for module in part.modules())
    return {id(getattr(m, name)) for m in modules for name in getattr(m, "own_gradient", ())}


def _failure(probe: Probe) -> Failure:
    index = None
    if probe.place is not None:
        entry = probe.place // 2 if probe.parameter.is_complex() else probe.place
        index = index_of(probe.parameter, entry)
    missing = probe.parameter.grad is None
    kind = "no gradient" if missing else f"{probe.analytic:.6g} by autograd"
    where = "" if probe.place is not None else " along a direction over the tensor"
    return Failure(
        probe.name, kind, f"{probe.numeric:.6g} by central differences{where}", _cause(probe), index
    )


def _cause(probe: Probe) -> str:
    if probe.analytic == 0:
        return "the path from the loss is cut: .detach(), .data, .item(), torch.no_grad() or a rounding"
    if probe.numeric == 0:
        return "the loss does not depend on it: an estimator that is meant to, or a wrong backward"
    ratio = probe.analytic / probe.numeric
    if abs(ratio + 1) < 1e-3:
        return "the sign is wrong in the backward of a custom autograd function"
    if probe.place is not None and abs(2 * ratio - round(2 * ratio)) < 1e-3:
        return f"{ratio:g} times too large: a factor in the backward of a custom autograd function"
    return "a wrong backward in a custom autograd function, or a value overwritten through .data"


def _unable(error: RuntimeError, surface: _Surface) -> Failure:
    """The failure of a model that cannot be differentiated at all."""
    if (failure := overwritten(error, surface.model, surface.batch)) is not None:
        return failure
    message = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    cause = "the check runs in float64: make tensors in the dtype of the inputs, as x.new_zeros does"
    if "does not require grad" in message:
        cause = "nothing in the loss depends on a parameter: .detach(), .item() or torch.no_grad()"
    return Failure("model", message, "a gradient", cause)

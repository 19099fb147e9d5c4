"""Where a NaN or inf comes from: the first operation that makes one, and the module it is in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

from trainer.diagnostics.layers import by_prefix

# What only puts a value where the caller says makes no anomaly: a mask of -inf is none.
PLACING = {"full", "full_like", "masked_fill", "masked_fill_", "fill_", "tensor", "where", "__set__"}


@dataclass(frozen=True, slots=True)
class Origin:
    """The first operation whose result is not finite.

    Attributes:
        operation: its name, that of a function going forward or of a node of autograd's graph.
        module: the innermost module that was running, and its class.
        cause: in words.
    """

    operation: str
    module: str
    cause: str

    def __str__(self) -> str:
        return f"{self.operation} in {self.module} {self.cause}"


class Anomaly(Exception):
    """A loss or a gradient is not finite; ``origin`` says where that began."""

    def __init__(self, what: str, origin: Origin | None) -> None:
        super().__init__(f"{what}: {origin or 'no operation that was seen is the first'}")
        self.origin = origin


def find_anomaly(
    model: nn.Module, loss: Callable[[Tensor, Any], Tensor], inputs: Tensor, targets: Any
) -> Anomaly | None:
    """Runs forward and backward, and says where a loss or gradient that is not finite began; None if
    both are finite. Slow: every operation is looked at. ``.grad`` stays as it is.

    Args:
        model: called with the inputs.
        loss: called with its predictions and the targets; returns a scalar.
        inputs: (B, …).
        targets: as the loss takes them.

    Example:
        >>> class Logarithm(torch.nn.Module):
        ...     def forward(self, x):
        ...         return torch.log(x)
        >>> model = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.ReLU(), Logarithm())
        >>> model[0].bias.data.fill_(-9.0).item()
        -9.0
        >>> found = find_anomaly(model, torch.nn.MSELoss(), torch.zeros(1, 2), torch.zeros(1, 1))
        >>> print(found)
        the loss is inf: log in 2 (Logarithm) returned -inf from finite inputs
    """
    detector = Detector(model, loss)
    with detector:
        value = loss(model(inputs), targets)
        parts = by_prefix(model, loss).values()
        trained = [p for part in parts for p in part.parameters() if p.requires_grad]
        gradients = torch.autograd.grad(value, trained, allow_unused=True)
    return detector.anomaly(value, (gradient for gradient in gradients if gradient is not None))


class Detector(TorchFunctionMode):
    """A context in which every operation is looked at, forwards and on the way back.

    Args:
        model: whose modules are named.
        loss: whose modules are, if it is one.
    """

    def __init__(self, model: nn.Module, loss: object = None) -> None:
        super().__init__()
        modules = by_prefix(model, loss)
        self.modules = {
            name: module
            for prefix, whole in modules.items()
            for name, module in whole.named_modules(prefix=prefix)
        }
        self.names = {
            id(tensor): name
            for prefix, whole in modules.items()
            for tensors in (whole.named_parameters(prefix), whole.named_buffers(prefix))
            for name, tensor in tensors
        }
        self.handles: list[RemovableHandle] = []
        self.forward: list[Origin] = []
        self.backward: list[Origin] = []
        self.running: list[str] = []
        self.nodes: set[Any] = set()

    def __enter__(self) -> Detector:
        self.forward, self.backward = [], []
        for name, module in self.modules.items():
            label = f"{name or 'the model'} ({type(module).__name__})"
            self.handles.append(module.register_forward_pre_hook(partial(self._enters, label)))
            self.handles.append(module.register_forward_hook(self._leaves))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for handle in self.handles:
            handle.remove()
        self.handles, self.nodes, self.running = [], set(), []

    def anomaly(self, loss: Tensor, gradients: Iterable[Tensor]) -> Anomaly | None:
        """What is to be said of a step that ran inside; None if loss and gradients are finite."""
        if word := _bad(loss):
            return Anomaly(f"the loss is {word}", next(iter(self.forward), None))
        words = {word for gradient in gradients if (word := _bad(gradient))}
        if words:
            first = next(iter(self.backward), None)
            return Anomaly(f"the loss is finite, its gradient is {' and '.join(sorted(words))}", first)
        return None

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        taken = [tensor for tensor in _tensors((args, kwargs or {})) if _bad(tensor)]
        result = function(*args, **(kwargs or {}))
        name = getattr(function, "__name__", str(function))
        self._look(name, taken, result)
        return result

    def _look(self, name: str, taken: list[Tensor], result: Any) -> None:
        module = self.running[-1] if self.running else "no module"
        for tensor in _tensors(result):
            self._follow(tensor.grad_fn, module)
            word = _bad(tensor)
            if not word or self.forward or name in PLACING or (taken and word == "-inf"):
                continue
            if taken and (tensor._is_view() or tensor is taken[0]):  # the same numbers in another shape
                continue
            cause = f"returned {word} from finite inputs"
            if taken:
                whose = self.names.get(id(taken[0]))
                cause = f"was given {_bad(taken[0])}, which "
                cause += f"is in {whose}" if whose else "came in with the batch"
            self.forward.append(Origin(name, module, cause))

    def _follow(self, node: Any, module: str) -> None:
        """Puts a hook on the nodes of the graph that are new: they belong to the module that runs."""
        fresh = [node]
        while fresh:
            node = fresh.pop()
            if node is None or node in self.nodes:
                continue
            self.nodes.add(node)
            if node.next_functions:  # else it only adds to a parameter's gradient
                node.register_hook(partial(self._went_back, node.name(), module))
                fresh += [before for before, _ in node.next_functions]

    def _went_back(self, name: str, module: str, gradients: Any, given: Any) -> None:
        words = [word for tensor in _tensors(gradients) if (word := _bad(tensor))]
        if words and not self.backward:
            self.backward.append(Origin(name, module, f"returned {words[0]} on the way back"))

    def _enters(self, label: str, module: nn.Module, inputs: Any) -> None:
        self.running.append(label)

    def _leaves(self, module: nn.Module, inputs: Any, output: Any) -> None:
        taken = [tensor for tensor in _tensors(inputs) if _bad(tensor)]
        self._look("forward", taken, output)  # of what torch does not show, such as custom kernels
        self.running.pop()


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))


def _bad(tensor: Tensor) -> str:
    """NaN, inf or -inf, whichever the tensor holds, the worst first; empty where it is finite."""
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return ""
    with torch.no_grad():
        values = torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor
        if values.isfinite().all():
            return ""
        if values.isnan().any():
            return "NaN"
        return "inf" if (values == torch.inf).any() else "-inf"

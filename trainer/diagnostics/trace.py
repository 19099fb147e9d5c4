"""What happens inside a forward pass: which module returned what, and which tensors were used."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

Seen = Callable[[str, tuple[Any, ...], Any], None]


@contextmanager
def watching(model: nn.Module, seen: Seen) -> Iterator[None]:
    """Calls ``seen(name, inputs, output)`` after each module's forward pass, inner modules first. The
    model itself has the name ``model``."""
    handles = []
    for name, module in model.named_modules():

        def hook(_: nn.Module, inputs: Any, output: Any, name: str = name or "model") -> None:
            seen(name, inputs, output)

        handles.append(module.register_forward_hook(hook))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors of nested tuples, lists and mappings, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    return [t for item in value for t in tensors_in(item)] if isinstance(value, tuple | list) else []


def changed_in_place(model: nn.Module, inputs: Tensor) -> list[str]:
    """The modules whose output was changed in place after they had returned it; for a module that
    returns what it was given, the one that it came from."""
    returned: list[tuple[str, str, Tensor, int]] = []

    def seen(name: str, _: Any, output: Any) -> None:
        kind = type(model.get_submodule(name) if name != "model" else model).__name__
        returned.extend((name, kind, tensor, tensor._version) for tensor in tensors_in(output))

    with watching(model, seen):
        model(inputs)
    found = (f"{name} ({kind})" for name, kind, tensor, then in returned if tensor._version != then)
    return list(dict.fromkeys(found))


def first_not_finite(model: nn.Module, inputs: Tensor) -> tuple[str, Any]:
    """The first module, inner ones first, that returns a value which is not finite although it was given
    only finite ones, and what the model predicts; the name is empty where there is none."""
    names: list[str] = []

    def seen(name: str, given: tuple[Any, ...], output: Any) -> None:
        if not all_finite(tensors_in(output)) and all_finite(tensors_in(given)):
            names.append(name)

    with watching(model, seen):
        predictions = model(inputs)
    return names[0] if names else "", predictions


@torch.no_grad()  # or what is looked at would be kept for the way back
def all_finite(tensors: list[Tensor]) -> bool:
    """Whether every entry of every tensor is finite."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors)


class Uses(TorchFunctionMode):
    """Takes note of which tensors are arguments of a torch function; to read an attribute is no use."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[int] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") not in ("__get__", "__set__"):
            self.ids |= {id(tensor) for tensor in tensors_in([*args, *(kwargs or {}).values()])}
        return func(*args, **(kwargs or {}))

"""What a model is made of: output shapes, parameters, multiplications, and how large activations are."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from trainer.diagnostics.untouched import untouched

FACTOR = 100.0
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
NORMALIZATIONS = (
    nn.modules.batchnorm._BatchNorm,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.modules.instancenorm._InstanceNorm,
    nn.LocalResponseNorm,
)


def _recurrent(inputs: Any, weights: Any, *more: Any, **_: Any) -> int:
    """Of a layer of torch's LSTM, or of all of them: every weight meets every step of every sample."""
    matrices = weights if isinstance(weights[0], torch.Size | list | tuple) else [weights, more[0]]
    each = sum(prod(shape) for shape in matrices if len(shape) == 2)
    return int(2 * prod(inputs[:-1]) * each)


def _attention(query: Any, key: Any, value: Any, *_: Any, **more: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


# What torch's counter does not know, and would take for nothing.
UNCOUNTED = {
    torch.ops.aten.mkldnn_rnn_layer: _recurrent,
    torch.ops.aten._cudnn_rnn: _recurrent,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
}


@dataclass(slots=True)
class Layer:
    """A module that has parameters of its own, no parts, or multiplications beside those of its parts.

    Attributes:
        name: dotted, as in ``named_modules``.
        kind: its class.
        output: shape of its first output for one sample.
        parameters: its own numbers; those of a tied weight count where they appear first.
        macs: multiply-accumulates for one sample, by `torch.utils.flop_counter`.
        scale: root mean square of its first output; None where it is no floating-point number.
        quantiles: `QUANTILES` of that output.
        mark: "vanishing" or "exploding" where the scale is less than a hundredth, or more than a hundred
            times, of both 1 and the inputs' (of tokens: their embedding's), "zero", "not finite", or "".
    """

    name: str
    kind: str
    output: tuple[int, ...] = ()
    parameters: int = 0
    macs: int = 0
    scale: float | None = None
    quantiles: tuple[float, ...] = ()
    mark: str = ""


def layers(model: nn.Module, inputs: Tensor) -> list[Layer]:
    """The modules in the order in which they were done with these inputs, in training mode; then those
    that were not called, whose parameters another one takes.

    Neither the model nor a random generator is changed.

    Args:
        model: called with the inputs.
        inputs: (B, …), B >= 2 where the model has BatchNorm.

    Example:
        >>> model = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
        >>> [(layer.name, layer.parameters, layer.macs) for layer in layers(model, torch.ones(3, 8))]
        [('0', 36, 32), ('1', 0, 0), ('2', 10, 8)]
    """
    own = _own_parameters(model)
    found: dict[str, Layer] = {}
    hooks = [
        module.register_forward_hook(partial(_note, found, name, own[name]))
        for name, module in model.named_modules()
    ]
    counter = FlopCounterMode(display=False, custom_mapping=UNCOUNTED)
    try:
        with untouched(model), torch.no_grad(), counter:
            model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    scales = [_scale(inputs), *(layer.scale for layer in found.values())]
    reference = next((scale for scale in scales if scale), 1.0)
    for name, layer in found.items():
        layer.macs = _macs(counter, model, name, found) // len(inputs)
        layer.mark = _mark(layer.scale, reference)
    parts = dict(model.named_modules())
    uncalled = {n: Layer(n, type(parts[n]).__name__, parameters=k) for n, k in own.items() if k}
    alone = [a for n, a in found.items() if own[n] or a.macs or not list(parts[n].children())]
    return [*alone, *(layer for name, layer in uncalled.items() if name not in found)]


def without_normalization(model: nn.Module) -> nn.Module:
    """A copy of the model whose normalization layers let everything through.

    Example:
        >>> without_normalization(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))[1]
        Identity()
    """
    plain = copy.deepcopy(model)
    for module in list(plain.modules()):
        for name, child in module.named_children():
            if isinstance(child, NORMALIZATIONS):
                setattr(module, name, nn.Identity())
    return plain


def _own_parameters(model: nn.Module) -> dict[str, int]:
    """Numbers of each module's own parameters, a tied one counted once."""
    seen: set[Tensor] = set()
    counts = {}
    for name, module in model.named_modules():
        fresh = [p for p in module.parameters(recurse=False) if p not in seen]
        seen.update(fresh)
        counts[name] = sum(parameter.numel() for parameter in fresh)
    return counts


def _macs(counter: FlopCounterMode, model: nn.Module, name: str, found: Iterable[str]) -> int:
    """Those of a module itself, without the ones of its own that have a row of their own."""

    def counted(module: str) -> int:
        path = ".".join(filter(None, (type(model).__name__, module)))
        return sum(counter.get_flop_counts().get(path, {}).values()) // 2

    def below(module: str) -> list[str]:
        return [n for n in found if n != module and (not module or n.startswith(f"{module}."))]

    inside = below(name)
    nested = {deeper for module in inside for deeper in below(module)}
    return counted(name) - sum(counted(module) for module in inside if module not in nested)


def _note(
    found: dict[str, Layer], name: str, parameters: int, module: nn.Module, _: Any, output: Any
) -> None:
    tensor = _first_tensor(output)
    if name in found or tensor is None:  # called again: its first call counts
        return
    values = tensor.detach().double().abs() if tensor.is_complex() else tensor.detach()
    quantiles: tuple[float, ...] = ()
    scale = _scale(tensor)
    if scale is not None:
        flat = values.flatten().double().cpu()
        flat = flat[:: max(1, len(flat) // 100_000)]  # torch.quantile takes no more than 16 million
        wanted = torch.tensor(QUANTILES, dtype=flat.dtype)
        quantiles = tuple(torch.quantile(flat, wanted).tolist()) if len(flat) else ()
    shape = tuple(tensor.shape[1:])
    found[name] = Layer(name, type(module).__name__, shape, parameters, 0, scale, quantiles)


def _first_tensor(output: Any) -> Tensor | None:
    if isinstance(output, tuple | list):
        return next((t for part in output if (t := _first_tensor(part)) is not None), None)
    return output if isinstance(output, Tensor) else None


def _scale(tensor: Tensor) -> float | None:
    if not (tensor.is_floating_point() or tensor.is_complex()):
        return None
    return float(tensor.detach().abs().double().square().mean().sqrt())


def _mark(scale: float | None, reference: float) -> str:
    if scale is None:
        return ""
    if scale == 0:
        return "zero"
    if not scale < float("inf"):
        return "not finite"
    if scale < min(reference, 1.0) / FACTOR:
        return "vanishing"
    return "exploding" if scale > max(reference, 1.0) * FACTOR else ""

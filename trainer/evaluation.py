"""Loss and metrics of a model over batches, without touching its state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeGuard

import torch
from torch import Tensor, nn

from trainer.data.tensors import Batch, Data
from trainer.metrics import Metric

LossValue = Tensor | tuple[Tensor, Mapping[str, Tensor]]
Loss = Callable[[Tensor, Any], LossValue]  # predictions, and targets as the data has them


def split_loss(value: LossValue) -> tuple[Tensor, Mapping[str, Tensor]]:
    """A loss's answer as (total, terms by name); a loss that returns one tensor has no terms."""
    return value if isinstance(value, tuple) else (value, {})


@contextmanager
def evaluating(*parts: object) -> Iterator[None]:
    """Evaluation mode and no gradients for those parts that are modules: the model, and a loss
    that keeps statistics. Afterwards every module is in the mode it was in, so that one that was frozen
    on purpose stays so."""
    models = [part for part in parts if isinstance(part, nn.Module)]
    modes = [(module, module.training) for model in models for module in model.modules()]
    for model in models:
        model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def evaluate(
    model: nn.Module,
    loss: Loss,
    batches: Iterable[Batch],
    metrics: Mapping[str, Metric],
    autocast: Callable[[], AbstractContextManager[object]],
    added: Callable[[Sequence[Tensor | float]], list[float]] | None = None,
) -> dict[str, float]:
    """Means over all samples of the batches: ``loss`` and every metric, by name; {} without batches.

    One transfer at the end. ``added`` brings sums to the host, together with those of whoever else has
    a part of the batches.
    """
    sums: dict[str, Tensor | float] = dict.fromkeys(("loss", *metrics), 0.0)
    count = 0
    with evaluating(model, loss):
        for inputs, targets in batches:
            with autocast():
                predictions = model(inputs)
                total, _ = split_loss(loss(predictions, targets))
            values = {"loss": total.double() * len(inputs)}
            for name, metric in metrics.items():
                values[name] = metric.function(wide(predictions), targets).double().sum()
            sums = {name: value + sums[name] for name, value in values.items()}
            count += len(inputs)
    *totals, samples = (added or _read)([*sums.values(), float(count)])
    return {name: total / samples for name, total in zip(sums, totals, strict=True)} if samples else {}


def image_samples(
    model: nn.Module,
    data: Data,
    autocast: Callable[[], AbstractContextManager[object]],
    count: int = 10,
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Inputs from all over the first validation batch, their predictions and targets, each (count, C, H,
    W) float32 on the CPU; None where these are no images of 1 or 3 channels."""
    inputs, targets = next(data.validation(), (None, None))
    if inputs is None or not _are_images(inputs) or not _are_images(targets):
        return None
    spread = slice(None, None, max(1, len(inputs) // count))  # neighbours are often alike
    inputs, targets = inputs[spread][:count], targets[spread][:count]
    with evaluating(model), autocast():
        samples = (inputs, model(inputs), targets)
    return tuple(tensor.float().cpu() for tensor in samples)  # type: ignore[return-value]


def _read(values: Sequence[Tensor | float]) -> list[float]:
    tensors = [value for value in values if isinstance(value, Tensor)]
    read = iter(torch.stack(tensors).tolist() if tensors else ())
    return [next(read) if isinstance(value, Tensor) else value for value in values]


def wide(tensor: Tensor) -> Tensor:
    """In float32 at least; complex as it is."""
    return tensor if tensor.dtype == torch.float64 or tensor.is_complex() else tensor.float()


def _are_images(value: Any) -> TypeGuard[Tensor]:
    if not isinstance(value, Tensor):
        return False
    return value.is_floating_point() and value.dim() == 4 and value.shape[1] in (1, 3)

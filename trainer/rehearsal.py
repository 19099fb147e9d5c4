"""One batch through model, loss and metrics before anything is made, so that parts that do not fit are
named: in a sentence, not by a traceback from the middle of the first step."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from operator import itemgetter
from typing import Any

import torch
from torch import Tensor, nn

from trainer.data.parts import check_rows
from trainer.data.tensors import Data, Targets, each
from trainer.evaluation import Loss, evaluating, split_loss, wide
from trainer.loop import Trainer
from trainer.rng import rng_state, set_rng_state


def rehearse(trainer: Trainer, data: Data, names: Mapping[str, str]) -> None:
    """Takes two samples of training and of validation data through model, loss and metrics; no
    parameter, buffer, mode or generator changes.

    Args:
        trainer: with model and loss.
        data: what it would be fitted on.
        names: what to call ``model``, ``loss`` and ``data`` in a message, such as "model=unet".

    Raises:
        ValueError: naming the two parts that do not fit, and their shapes.
    """
    if trainer.processes.size > 1 and hasattr(trainer.loss, "own_gradient"):
        raise ValueError(
            f"{names['loss']} must see the whole batch at once, of which each of "
            f"{trainer.processes.size} processes has a part; start it without torchrun"
        )
    data = data.to(trainer.device, trainer.precision.dtype)
    generators = rng_state(trainer.device)
    try:
        if trainer.precision.autocasts:
            _rehearse_precision(trainer, data, names)
        with evaluating(trainer.model, trainer.loss):
            for batches in (data.batches(0), data.validation()):
                for inputs, targets in islice(batches, 1):
                    _rehearse(trainer, data, names, *each(itemgetter(slice(2)), (inputs, targets)))
        _rehearse_last_batch(trainer, data, names)
    finally:
        set_rng_state(trainer.device, generators)


def _rehearse_precision(trainer: Trainer, data: Data, names: Mapping[str, str]) -> None:
    """Not every device has every operation in every format, and its way back: are there two samples
    that can be trained on in float32 only?"""
    inputs, targets = each(itemgetter(slice(2)), next(data.batches(0)))
    trained = [parameter for parameter in trainer.parameters if parameter.requires_grad]

    def there_and_back(context: AbstractContextManager[object]) -> None:
        with torch.enable_grad(), context:
            total, _ = split_loss(trainer.loss(trainer.model(inputs), targets))
        torch.autograd.grad(total, trained, allow_unused=True)

    with evaluating(trainer.model, trainer.loss):
        for module in trainer.model.modules():
            module.training = isinstance(module, nn.RNNBase)  # cuDNN has no way back for others
        try:
            there_and_back(trainer.precision.autocast())
        except Exception as error:
            try:
                there_and_back(nullcontext())
            except Exception:
                return  # not for the format, then; it will fail again
            raise ValueError(
                f"trainer.precision={trainer.precision.name} must be one that {names['model']} can be "
                f"computed in on {trainer.device}: {_line(error)}; use trainer.precision=fp32"
            ) from error


def _rehearse(
    trainer: Trainer, data: Data, names: Mapping[str, str], inputs: Tensor, targets: Targets
) -> None:
    try:
        with trainer.precision.autocast():
            predictions = trainer.model(inputs)
    except Exception as error:
        raise ValueError(
            f"{names['model']} does not take the inputs of {names['data']}, {_shape(inputs)} a "
            f"sample: {_line(error)}"
        ) from error
    pair = (
        f"{names['model']} predicting {_shape(predictions)} and {names['data']} with targets "
        f"{_shape(targets)}, a sample"
    )
    try:
        with warnings.catch_warnings(), trainer.precision.autocast():
            # torch only warns when it broadcasts (B, 1) against (B,), and the loss is then wrong.
            warnings.simplefilter("error", UserWarning)
            total = _total(trainer.loss, predictions, targets)
    except Exception as error:
        reason = f"{_line(error).rstrip('.')}{_remedy(targets, names['loss'])}"
        raise ValueError(f"{names['loss']} does not fit {pair}: {reason}") from error
    if not isinstance(total, Tensor) or total.dim() != 0:
        raise ValueError(f"{names['loss']} must return a scalar, got {_shape(total)} for {pair}")
    for name, metric in data.metrics.items():
        try:
            value = metric.function(wide(predictions), targets)
        except Exception as error:
            raise ValueError(f"the metric {name} does not fit {pair}: {_line(error)}") from error
        if value.shape != (len(inputs),):
            raise ValueError(
                f"the metric {name} must return one value per sample, shape ({len(inputs)},), got "
                f"{tuple(value.shape)}"
            )


def _total(loss: Loss, predictions: Tensor, targets: Any) -> object:
    """What the loss returns as total. Its gradient is taken too: torch's huber takes whole numbers, and
    fails on the way back."""
    if not (predictions.is_floating_point() or predictions.is_complex()):
        return split_loss(loss(predictions, targets))[0]
    with torch.enable_grad():
        leaf = predictions.detach().requires_grad_()
        total, _ = split_loss(loss(leaf, targets))
        if isinstance(total, Tensor) and total.dim() == 0:
            torch.autograd.grad(total, leaf)
    return total


def _remedy(targets: object, loss: str) -> str:
    """Which loss is for such targets, unless it is the one that has failed."""
    if isinstance(targets, tuple):
        kind, remedy = "a target and a mask", "loss=masked"
    elif isinstance(targets, Tensor) and not (targets.is_floating_point() or targets.is_complex()):
        kind, remedy = "labels", "loss=cross_entropy"
    else:
        kind, remedy = "targets like the predictions", "loss=mse"
    return "" if loss == remedy else f"; for {kind} use {remedy}"


def _rehearse_last_batch(trainer: Trainer, data: Data, names: Mapping[str, str]) -> None:
    """BatchNorm cannot train on a single value per channel, which the last batch may come down to."""
    inputs, _ = next(data.batches(0, data.batches_per_epoch - 1))
    check_rows(len(inputs), trainer.processes.size)
    if len(inputs) > 1:
        return
    buffers = [buffer.clone() for buffer in trainer.model.buffers()]
    try:
        with torch.no_grad(), trainer.precision.autocast():
            trainer.model(inputs)
    except Exception as error:
        raise ValueError(
            f"the last batch of {names['data']} has a single sample, which "
            f"{names['model']} cannot train on: {_line(error)}; use another data.batch_size"
        ) from error
    finally:
        for buffer, saved in zip(trainer.model.buffers(), buffers, strict=True):
            buffer.copy_(saved)


def _shape(value: object) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_shape, value))})"
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{tuple(value.shape[1:])} {str(value.dtype).removeprefix('torch.')}"


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"

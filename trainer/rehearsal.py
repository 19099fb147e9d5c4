"""One batch through model, loss and metrics before anything is made, so that parts that do not fit are
named: in a sentence, not by a traceback from the middle of the first step."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

from trainer.data.tensors import Data
from trainer.evaluation import split_loss
from trainer.loop import Trainer


@torch.no_grad()
def rehearse(trainer: Trainer, data: Data, names: Mapping[str, str]) -> None:
    """Evaluates two samples in evaluation mode; no parameter, buffer or generator changes.

    Args:
        trainer: with model and loss.
        data: what it would be fitted on.
        names: what to call ``model``, ``loss`` and ``data`` in a message, such as "model=unet".

    Raises:
        ValueError: naming the two parts that do not fit, and their shapes.
    """
    device, dtype = trainer.device, trainer.precision.dtype
    batch = next(data.to(device, dtype).validation(), None) or next(data.batches(0))
    inputs, targets = (tensor[:2] for tensor in batch)
    trainer.model.eval()
    try:
        with trainer.precision.autocast():
            predictions = trainer.model(inputs)
    except Exception as error:
        raise ValueError(
            f"{names['model']} does not take the inputs of {names['data']}, {_shape(inputs)} a "
            f"sample: {_line(error)}"
        ) from error
    finally:
        trainer.model.train()
    pair = (
        f"{names['model']} predicting {_shape(predictions)} and {names['data']} with targets "
        f"{_shape(targets)}, a sample"
    )
    try:
        with warnings.catch_warnings():
            # torch only warns when it broadcasts (B, 1) against (B,), and the loss is then wrong.
            warnings.simplefilter("error", UserWarning)
            total, _ = split_loss(trainer.loss(predictions, targets))
        for metric in data.metrics.values():
            metric.function(predictions.float(), targets)
    except Exception as error:
        raise ValueError(f"{names['loss']} does not fit {pair}: {_line(error)}") from error
    if not isinstance(total, Tensor) or total.dim() != 0:
        raise ValueError(f"{names['loss']} must return a scalar, got {_shape(total)} for {pair}")


def _shape(value: object) -> str:
    if not isinstance(value, Tensor):
        return type(value).__name__
    return f"{tuple(value.shape[1:])} {str(value.dtype).removeprefix('torch.')}"


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"

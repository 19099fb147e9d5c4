"""From plain inputs and targets to data for regression or classification, with the metrics of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from trainer import checks
from trainer.data.prepare import scale
from trainer.data.tensors import TensorData
from trainer.metrics import Metric, absolute_error, accuracy, explained

Pair = tuple[Tensor, Tensor]
TASKS = ("regression", "classification")


def standardized(train: Pair, val: Pair) -> tuple[Pair, Pair, dict[str, Any]]:
    """Inputs as (x − mean) / std, by the training samples' mean and deviation of each column."""
    mean, std = scale(train[0])
    pairs = [(((x.double() - mean) / std).float(), y) for x, y in (train, val)]
    how = {"inputs": "(x − mean) / std", "mean": mean.tolist(), "std": std.tolist()}
    return pairs[0], pairs[1], how


def regression(
    train: Pair,
    val: Pair,
    *,
    standardize: bool,
    provenance: Mapping[str, Any],
    **settings: Any,
) -> TensorData:
    """Targets (N, …) as numbers. The metrics are in the targets' own units: ``mae``, the mean absolute
    error, and for targets (N, k) that vary ``r2``, the share of their variance that is explained.

    Args:
        train: inputs and targets.
        val: likewise.
        standardize: train on (y − mean) / std of each column, with the training targets' figures.
        provenance: where the samples come from.
        settings: of `TensorData`.
    """
    scales: dict[str, Any] = {}
    units = [1.0]
    if standardize:
        mean, std = scale(train[1])
        train, val = ((x, ((y.double() - mean) / std).float()) for x, y in (train, val))
        units = std.flatten().tolist()
        scales = {"targets": "(y − mean) / std", "target_mean": mean.tolist(), "target_std": units}
    metrics = {"mae": Metric(partial(absolute_error, units=units), higher_is_better=False)}
    variance = val[1].double().var(0, correction=0).flatten().tolist()
    if val[1].dim() <= 2 and min(variance) > 0:
        metrics["r2"] = Metric(partial(explained, variance=variance), higher_is_better=True)
    recorded = dict(provenance)
    recorded["normalisation"] = {**provenance.get("normalisation", {}), **scales}
    return TensorData(train, val, metrics=metrics, provenance=recorded, **settings)


def classification(
    train: Pair,
    val: Pair,
    *,
    classes: int | Sequence[str],
    provenance: Mapping[str, Any],
    **settings: Any,
) -> TensorData:
    """Targets (N, …) as labels, whole numbers from 0 on; the metric is ``accuracy``.

    Args:
        train: inputs and labels, int64.
        val: likewise.
        classes: how many there are, or their names.
        provenance: where the samples come from.
        settings: of `TensorData`.
    """
    count = classes if isinstance(classes, int) else len(classes)
    return TensorData(
        train,
        val,
        metrics={"accuracy": Metric(accuracy, higher_is_better=True)},
        output_shape=(count, *train[1].shape[1:]),
        provenance={**provenance, "classes": classes if isinstance(classes, int) else list(classes)},
        **settings,
    )


def check_labels(labels: Tensor, count: int, where: str) -> None:
    """Refuses labels that are not from 0 to ``count`` − 1, before a split changes their numbers.

    Raises:
        ValueError: naming the sample.
    """
    bad = ((labels < 0) | (labels >= count)).flatten().nonzero()
    if len(bad):
        sample = int(bad[0]) // max(labels[0].numel(), 1)
        raise ValueError(
            f"{where} must hold labels from 0 to {count - 1}, one of {count} classes, got "
            f"{labels.flatten()[bad[0]].item()} in sample {sample} ({len(bad)} in all)"
        )


def check_task(task: Any) -> str:
    """The value, if it is one of `TASKS`; raises ValueError otherwise."""
    return checks.choice("task", task, TASKS)


def ordered(words: set[str]) -> list[str]:
    """Words by the alphabet; by their number, if all are whole numbers."""
    try:
        return sorted(words, key=int)
    except ValueError:
        return sorted(words)

"""Loss and metrics of all members of a stack over the same validation samples."""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.data.tensors import Data
from trainer.ensemble.stack import Stack
from trainer.evaluation import evaluating, wide

MOST_NUMBERS = 2**20  # of all members' inputs in a batch: beyond it the work is no longer in the calls


def evaluate_stack(stack: Stack, data: Data) -> list[dict[str, float]] | None:
    """What `trainer.evaluation.evaluate` says of each member, in one pass over the batches; None where
    they are so large that it would save nothing but need more memory."""
    sums: dict[str, Tensor] = {}
    count = 0
    with evaluating(stack.whole):
        for inputs, targets in data.validation():
            if inputs.numel() * len(stack.members) > MOST_NUMBERS:
                return None
            predictions, total = stack.predicted(inputs, targets)
            values = {"loss": total.double() * len(inputs)}
            for name, metric in data.metrics.items():
                each = [metric.function(wide(one), targets).double().sum() for one in predictions]
                values[name] = torch.stack(each)
            sums = {name: value + sums.get(name, 0.0) for name, value in values.items()}
            count += len(inputs)
    if not count:
        return [{} for _ in stack.members]
    means = (torch.stack(list(sums.values())) / count).T.tolist()
    return [dict(zip(sums, row, strict=True)) for row in means]

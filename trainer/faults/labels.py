"""Targets that belong to other samples."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from trainer import checks
from trainer.data.mapstyle import MapStyleData
from trainer.data.tensors import FAULT, Batch, Data, TensorData, seeded_generator
from trainer.faults.fault import NoFault, checked_share
from trainer.schedulers import Horizon


class LabelNoise(NoFault):
    """y_i ← y_j: a share of the training samples have the target of another of them, in every epoch.

    The wrong targets are the right ones of those samples, passed round, so that no target becomes more
    frequent; where labels are few, some samples keep theirs by chance.

    Args:
        share: of the training samples, at least two; 0 < share <= 1.
        seed: of which, and of whose target each gets.

    Raises:
        ValueError: for an argument out of range.
    """

    def __init__(self, share: float = 0.1, seed: int = 0) -> None:
        self.share = checked_share(share)
        self.seed = checks.whole("seed", seed)

    def data(self, data: Data, horizon: Horizon) -> Data:
        """The data with those targets.

        Raises:
            ValueError: for data of which it cannot be said which sample a target belongs to.
        """
        if isinstance(data, TensorData):
            source = self._source(len(data.train[0]))
            noisy = copy.copy(data)
            noisy.transform = _Relabelling(data, source)
            return noisy
        if isinstance(data, MapStyleData):
            fetched = copy.copy(data)
            fetched.train = _Relabelled(data.train, self._source(data.count).tolist())
            return fetched
        raise ValueError(
            f"inputs must be samples that come again in every epoch, got {type(data).__name__}; use "
            "fault=lr_spike"
        )

    def _source(self, count: int) -> Tensor:
        """For each sample the one whose target it gets, (count,)."""
        order = torch.randperm(count, generator=seeded_generator(FAULT, self.seed))
        chosen = order[: max(2, round(self.share * count))]
        source = torch.arange(count)
        source[chosen] = chosen.roll(1)
        return source


class _Relabelling:
    """A transform that makes what the data's own would, and then hands out the targets anew."""

    def __init__(self, data: TensorData, source: Tensor) -> None:
        self.transform, self.source = data.transform, source

    def __call__(self, inputs: Tensor, targets: Any, generator: torch.Generator) -> tuple[Tensor, Any]:
        # The order of the epoch was the first that its generator drew.
        again = torch.Generator().manual_seed(generator.initial_seed())
        order = torch.randperm(len(self.source), generator=again)
        if self.transform is not None:
            inputs, targets = self.transform(inputs, targets, generator)
        rows = order.argsort()[self.source[order]].to(inputs.device)
        if isinstance(targets, tuple):
            return inputs, tuple(target[rows] for target in targets)
        return inputs, targets[rows]


class _Relabelled(Dataset[Batch]):
    """A dataset whose item i has the target of item ``source[i]``."""

    def __init__(self, dataset: Dataset[Any], source: list[int]) -> None:
        self.dataset, self.source = dataset, source

    def __getitem__(self, index: int) -> Any:
        inputs, targets = self.dataset[index]
        other = self.source[index]
        return inputs, targets if other == index else self.dataset[other][1]

"""Map-style data: the order and the augmentations are pure functions of (seed, epoch, index)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from trainer.data.mapstyle import MapStyleData
from trainer.loop import Trainer


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """x = index plus noise from torch's global generator, as augmentations draw it."""

    def __init__(self, count: int = 11) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.full((2,), float(index)) + 0.1 * torch.rand(2), torch.tensor([float(index)])


def epoch(data: MapStyleData, number: int, start: int = 0) -> list[Tensor]:
    return [torch.cat([x, y], 1) for x, y in data.batches(number, start)]


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_holds_each_sample_once_and_starts_anywhere(workers: int) -> None:
    data = MapStyleData(Noisy(), batch_size=4, seed=3, num_workers=workers)
    whole = epoch(data, 5)
    assert sorted(torch.cat(whole)[:, 2].tolist()) == list(range(11))
    assert len(whole) == data.batches_per_epoch == 3
    for start in range(3):
        later = epoch(data, 5, start)
        assert all(torch.equal(a, b) for a, b in zip(later, whole[start:], strict=True))


def test_workers_change_nothing_and_the_global_generator_is_left_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    alone, helped = (epoch(MapStyleData(Noisy(), batch_size=4, num_workers=n), 1) for n in (0, 2))
    assert all(torch.equal(a, b) for a, b in zip(alone, helped, strict=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_seeds_and_epochs_differ_in_order_and_noise() -> None:
    orders = [
        torch.cat(epoch(MapStyleData(Noisy(), batch_size=4, seed=seed), number))
        for seed, number in ((0, 0), (0, 1), (1, 0))
    ]
    assert not any(torch.equal(a, b) for a, b in pairwise(orders))


class Several(Noisy):
    """A complex target and a mask."""

    def __getitem__(self, index: int) -> Any:
        return torch.zeros(3), (torch.full((2,), 1j * index), torch.tensor([index > 4]))


def test_a_tuple_of_targets_comes_as_a_tuple() -> None:
    data = MapStyleData(Several(), Several(3), batch_size=4, provenance={"source": "here"})
    assert (data.input_shape, data.output_shape) == ((3,), (2,))
    assert data.provenance == {"train": 11, "val": 3, "source": "here"}
    data.to(torch.device("cpu"), torch.float64)
    for inputs, targets in [*data.batches(0), *data.validation()]:
        assert isinstance(targets, tuple)
        assert [t.dtype for t in (inputs, *targets)] == [torch.float64, torch.complex128, torch.bool]
        assert torch.equal(targets[0][:, :1].imag > 4, targets[1])


def test_it_trains_and_validates() -> None:
    data = MapStyleData(Noisy(), Noisy(5), batch_size=4)
    model = nn.Linear(*data.input_shape, *data.output_shape)
    trainer = Trainer(model, nn.MSELoss(), torch.optim.Adam(model.parameters(), 0.05), max_epochs=9)
    summary = trainer.fit(data)
    assert summary["metrics"]["val/loss"]["last"] < summary["metrics"]["val/loss"]["first"]


def test_an_empty_set_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        MapStyleData(Noisy(0))

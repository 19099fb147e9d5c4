"""Map-style data: the order and the augmentations are pure functions of (seed, epoch, index)."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from torch import Tensor, nn
from torch.utils.data import Dataset, get_worker_info

from trainer import checkpoint
from trainer.data.mapstyle import DataWorkerFailed, MapStyleData
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


class Failing(Noisy):
    """In a worker, sample 7 kills it, hangs, or raises."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index == 7 and get_worker_info() is not None:
            if self.how == "raises":
                raise ValueError("sample 7 is broken")
            time.sleep(1000) if self.how == "hangs" else os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


# torch raises in a signal handler, at times inside of Hypothesis's hook into the garbage collector.
# That swallows it, and the loader finds the worker gone a little later.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("how", "told"),
    [
        # Or in torch's words, where the signal comes while a step is under way.
        ("killed", "exited or was killed, perhaps for want of memory|killed by signal"),
        ("hangs", "gave nothing for 1 s"),
        ("raises", "raised ValueError: sample 7 is broken"),
    ],
)
def test_a_worker_that_fails_is_told_in_a_line_and_none_stays(
    how: str, told: str, tmp_path: Path
) -> None:
    timeout = 1 if how == "hangs" else 15  # a busy machine may take its time
    data = MapStyleData(Failing(how), batch_size=2, num_workers=2, timeout=timeout)
    model = nn.Linear(2, 1)
    trainer = Trainer(model, nn.MSELoss(), torch.optim.SGD(model.parameters(), 1e-3), max_epochs=2)
    began = time.monotonic()
    with pytest.raises(RuntimeError, match=told) as caught:
        trainer.fit(data, tmp_path)
    assert time.monotonic() - began < 30
    assert not multiprocessing.active_children()
    assert len(str(caught.value).splitlines()) == 1
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == "failed"
    assert re.search(told, summary["reason"])


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(104, "Connection reset by peer"),
        EOFError(),
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
    ],
)
def test_a_worker_killed_at_any_instant_is_told_as_killed(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(loader: object, data: object) -> None:
        raise error

    monkeypatch.setattr(
        "torch.utils.data.dataloader._MultiProcessingDataLoaderIter._try_get_data", broken
    )
    batches = MapStyleData(Noisy(), batch_size=2, num_workers=1).batches(0)
    with pytest.raises(DataWorkerFailed, match="exited or was killed"):
        next(batches)


ORPHANS = """
import multiprocessing, sys, time
sys.path[:0] = sys.argv[1:]
from test_mapstyle import Noisy
from trainer.data.mapstyle import MapStyleData
batches = MapStyleData(Noisy(1000), batch_size=2, num_workers=2).batches(0)
next(batches)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
time.sleep(100)
"""


def test_no_worker_outlives_a_run_that_was_killed() -> None:
    command = [sys.executable, "-c", ORPHANS, str(ROOT), str(ROOT / "tests")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    workers = [int(word) for word in process.stdout.readline().split()]
    assert len(workers) == 2
    process.kill()
    process.communicate()
    end = time.monotonic() + 30
    while any(Path(f"/proc/{pid}/cmdline").exists() for pid in workers):
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.parametrize(("workers", "cut"), [(0, 1), (0, 2), (0, 4), (0, 7), (2, 2), (2, 7)])
def test_a_run_cut_in_the_middle_of_an_epoch_goes_on_bit_for_bit(
    workers: int, cut: int, tmp_path: Path
) -> None:
    def trainer(steps: int) -> Trainer:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 1))
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        settings = {"max_epochs": None, "max_steps": steps, "log_every": 3, "accumulate": 2}
        return Trainer(model, nn.MSELoss(), optimizer, **settings)  # type: ignore[arg-type]

    def data() -> MapStyleData:
        return MapStyleData(Noisy(12), batch_size=2, seed=1, num_workers=workers)

    whole, first, second = trainer(8), trainer(cut), trainer(8)
    whole.fit(data(), tmp_path / "whole")
    first.fit(data(), tmp_path / "run")
    state, _ = checkpoint.load_newest(tmp_path / "run")
    assert state is not None
    second.load_state_dict(state)
    second.fit(data(), tmp_path / "run")
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name

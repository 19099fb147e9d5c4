"""Snapshots: going back is bit for bit, costs no more memory than allowed, and survives a checkpoint."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from test_transaction import build_optimizer, flat, model
from torch import nn
from torch.optim import Optimizer

from trainer import checkpoint
from trainer.snapshot import Snapshots

OPTIMIZERS = sorted((ROOT / "conf" / "optimizer").glob("*.yaml"))
MIB = 2**20


class Job:
    """A model with BatchNorm, its optimizer, and snapshots of both."""

    def __init__(self, path: Path = OPTIMIZERS[0], budget: float = MIB) -> None:
        self.model = model()
        self.optimizer: Optimizer = build_optimizer(path, list(self.model.parameters()))
        self.snapshots = Snapshots({"model": self.model, "optimizer": self.optimizer}, budget)
        self.generator = torch.Generator().manual_seed(3)

    def train(self, steps: int, scale: float = 1.0) -> None:
        """Updates everything in place, as training does."""
        for _ in range(steps):
            self.optimizer.zero_grad()
            inputs = scale * torch.randn(4, 3, generator=self.generator)
            self.model(inputs).square().mean().backward()
            self.optimizer.step()

    def state(self) -> dict[str, Any]:
        return copy.deepcopy(
            {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        )


def same(a: Any, b: Any) -> bool:
    pairs = list(zip(flat(a), flat(b), strict=True))
    return bool(pairs) and all(torch.equal(x, y) and x.dtype == y.dtype for x, y in pairs)


def size(job: Job) -> int:
    return sum(tensor.nbytes for tensor in flat(job.state()["model"])) + sum(
        tensor.nbytes for tensor in flat(job.state()["optimizer"]["state"])
    )


@pytest.mark.parametrize("path", OPTIMIZERS, ids=lambda p: p.stem)
def test_going_back_is_bit_for_bit(path: Path) -> None:
    job = Job(path)
    job.train(3)
    then = job.state()
    job.snapshots.take()
    job.train(5, scale=100.0)
    assert not same(then, job.state())
    assert job.snapshots.restore()
    assert same(then, job.state())
    assert then["optimizer"]["param_groups"] == job.optimizer.state_dict()["param_groups"]


@pytest.mark.parametrize("path", OPTIMIZERS, ids=lambda p: p.stem)
def test_what_follows_is_what_followed_then(path: Path) -> None:
    job = Job(path)
    job.train(3)
    job.snapshots.take()
    position = job.generator.get_state()
    job.train(4)
    first = job.state()
    job.snapshots.restore()
    job.generator.set_state(position)
    job.train(4)
    assert same(first, job.state())


def test_training_on_after_going_back_leaves_the_snapshot_as_it_was() -> None:
    job = Job()
    job.train(2)
    then = job.state()
    job.snapshots.take()
    for _ in range(3):
        job.train(4)
        assert not same(then, job.state())
        assert job.snapshots.restore()
        assert same(then, job.state())
    assert same(then, job.snapshots.taken[0])


def test_without_a_snapshot_nothing_happens() -> None:
    job = Job()
    before = job.state()
    assert not job.snapshots.restore()
    assert same(before, job.state())


def test_of_many_the_two_latest_are_kept_and_the_older_one_is_used() -> None:
    job = Job()
    states = []
    for _ in range(5):
        job.train(1)
        job.snapshots.take()
        states.append(job.state())
    assert len(job.snapshots.taken) == 2
    job.train(1)
    assert job.snapshots.restore()
    assert same(states[3], job.state())
    assert len(job.snapshots.taken) == 1  # what came after it is not trusted again


def test_a_budget_for_one_keeps_the_latest() -> None:
    job = Job()
    job.train(1)
    job.snapshots.budget = 2 * size(job) - 1
    for _ in range(3):
        job.train(1)
        job.snapshots.take()
    assert len(job.snapshots.taken) == 1
    assert same(job.snapshots.taken[0], job.state())


def test_a_budget_for_exactly_two_keeps_two() -> None:
    job = Job()
    job.train(1)
    job.snapshots.budget = 2 * size(job)
    for _ in range(3):
        job.snapshots.take()
    assert len(job.snapshots.taken) == 2


def test_a_budget_for_none_is_refused_with_the_size() -> None:
    wide = nn.Linear(1024, 3 * 1024, bias=False)  # 12 MiB
    snapshots = Snapshots({"model": wide}, budget=11.5 * MIB)
    with pytest.raises(ValueError, match=r"12 MiB, got 11\.5; raise guard\.budget_mb") as refusal:
        snapshots.take()
    assert len(str(refusal.value).splitlines()) == 1
    assert snapshots.taken == []
    Snapshots({"model": wide}, budget=12 * MIB).take()


def test_a_checkpoint_carries_the_snapshots(tmp_path: Path) -> None:
    job, other = Job(), Job()
    for _ in range(2):
        job.train(2)
        job.snapshots.take()
    checkpoint.save(tmp_path / "file", job.snapshots.state_dict())
    other.snapshots.load_state_dict(checkpoint.load(tmp_path / "file"))
    assert len(other.snapshots.taken) == 2
    for each in (job, other):
        each.snapshots.restore()
    assert same(job.state(), other.state())


def test_a_saved_list_of_snapshots_does_not_change_with_the_run() -> None:
    job = Job()
    job.train(1)
    job.snapshots.take()
    state = job.snapshots.state_dict()
    for _ in range(2):
        job.train(1)
        job.snapshots.take()
    assert len(state["taken"]) == 1
    assert not same(state["taken"][0], job.snapshots.taken[0])

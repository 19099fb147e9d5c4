"""On a device that runs ahead of the host no step waits for it, and a refused step leaves no trace.

Here the CPU plays that device: it is told that nothing on it is known to the host."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra.utils
import pytest
import torch
from conftest import ROOT
from omegaconf import OmegaConf
from test_transaction import build_optimizer, data, flat, model
from torch import Tensor, nn

from trainer.data.tensors import TensorData
from trainer.guard import Rewind, Skip
from trainer.loop import Trainer

OPTIMIZERS = sorted((ROOT / "conf" / "optimizer").glob("*.yaml"))
CLIPS = sorted((ROOT / "conf" / "clip").glob("*.yaml"))
READING = ("item", "tolist", "__bool__", "__float__", "__int__", "cpu", "numpy")


@pytest.fixture(autouse=True)
def ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever asks gets the answer that it would get on CUDA."""
    monkeypatch.setattr(Tensor, "is_cpu", property(lambda tensor: False))


def trainer(steps: int, optimizer: Path | None = None, **settings: Any) -> Trainer:
    net = model()
    parameters = list(net.parameters())
    adam = torch.optim.Adam(parameters, 1e-2, fused=True)
    chosen = adam if optimizer is None else build_optimizer(optimizer, parameters)
    built = Trainer(net, nn.MSELoss(), chosen, max_steps=steps, max_epochs=None, **settings)
    built.runs_ahead = True
    return built


def state(run: Trainer) -> list[Tensor]:
    parts = {"model": run.model.state_dict(), "optimizer": run.optimizer.state_dict()["state"]}
    return flat(copy.deepcopy(parts))


@contextmanager
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Notes every call that would make the host wait for the device."""
    waited: list[str] = []

    def noting(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(tensor: Tensor, *arguments: Any) -> Any:
            waited.append(name)
            return call(tensor, *arguments)

        return wrapper

    with monkeypatch.context() as patch:
        for name in READING:
            patch.setattr(Tensor, name, noting(name, getattr(Tensor, name)))
        yield waited


def steps_of(run: Trainer, batches: TensorData) -> Iterator[None]:
    """The steps of a run, without what happens between them."""
    for batch in batches.batches(0):
        run._step([batch])
        yield


@pytest.mark.parametrize("mode", CLIPS, ids=lambda p: p.stem)
def test_no_step_but_the_first_waits_for_the_device(monkeypatch: pytest.MonkeyPatch, mode: Path) -> None:
    clip = hydra.utils.instantiate(OmegaConf.load(mode), _convert_="all")
    steps = steps_of(trainer(10, clip=clip), data(math.nan, (4,)))
    next(steps)
    with no_waiting(monkeypatch) as waited:
        list(steps)
    assert waited == []


@pytest.mark.parametrize("path", OPTIMIZERS, ids=lambda p: p.stem)
@pytest.mark.parametrize("at", [0, 5, 9], ids=["first", "middle", "last"])
@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_refused_step_leaves_weights_buffers_and_moments_bit_for_bit(
    path: Path, at: int, poison: float
) -> None:
    before = trainer(at, path) if at else None
    if before is not None:
        before.fit(data(poison, (at,)))
    after = trainer(at + 1, path)
    after.fit(data(poison, (at,)))
    assert after.guard.skipped == 1
    expected = state(before) if before is not None else flat(model().state_dict())
    found = state(after)[: len(expected)]
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_without_a_clip_the_run_is_the_one_that_waits_bit_for_bit() -> None:
    runs = [trainer(40), trainer(40)]
    runs[1].runs_ahead = False
    for run in runs:
        run.fit(data(math.nan, (3, 7)))
    assert [run.guard.skipped for run in runs] == [8, 8]
    assert all(torch.equal(a, b) for a, b in zip(*map(state, runs), strict=True))


def test_many_bad_steps_end_the_run_at_the_next_reading() -> None:
    run = trainer(100, guard=Skip(max_consecutive=3), log_every=10)
    summary = run.fit(data(math.nan, tuple(range(10))))
    assert summary["status"] == "diverged"
    assert summary["steps"] == 10
    assert summary["guard"]["skipped"] == 4


def test_a_rewind_happens_at_the_next_reading() -> None:
    run = trainer(60, guard=Rewind(max_consecutive=3, every=10, max_rewinds=9), log_every=5)
    summary = run.fit(data(math.nan, tuple(range(5))))
    assert summary["guard"]["rewound"] > 0
    assert all(torch.isfinite(tensor).all() for tensor in state(run))

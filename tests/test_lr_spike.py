"""A learning rate that is far too large for a few steps, and then exactly what it would have been."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_faults import job
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import StepLR

from trainer.faults import LrSpike
from trainer.schedulers import Horizon, Schedule, cosine, plateau


def rates(schedule: Schedule, optimizer: SGD, steps: int, per_epoch: int = 10) -> list[float]:
    """The learning rate that each step is taken with."""
    seen = []
    for number in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        schedule.step_ended()
        if number % per_epoch == per_epoch - 1:
            schedule.epoch_ended({"val/loss": 1.0})
    return seen


def a_schedule(kind: str) -> tuple[Any, SGD, Horizon]:
    optimizer = SGD(nn.Linear(1, 1).parameters(), lr=0.1)
    length = Horizon(60, 6, 10)
    build: dict[str, Callable[[], Any]] = {
        "cosine": lambda: cosine(optimizer, length),
        "plateau": lambda: plateau(optimizer, length, patience=0),
        "torch's own": lambda: StepLR(optimizer, 2, 0.3),
    }
    return build[kind](), optimizer, length


@pytest.mark.parametrize("at", [0.0, 0.3, 0.5, 0.95])
@pytest.mark.parametrize("kind", ["cosine", "plateau", "torch's own"])
def test_the_rate_is_multiplied_in_the_spike_and_else_to_the_bit_what_it_was(
    kind: str, at: float
) -> None:
    schedule, optimizer, length = a_schedule(kind)
    plain = rates(schedule if isinstance(schedule, Schedule) else Schedule(schedule), optimizer, 60)
    schedule, optimizer, length = a_schedule(kind)
    spiked = rates(LrSpike(at, 12, 50.0).schedule(schedule, optimizer, length), optimizer, 60)
    first = int(60 * at)
    expected = [50.0 * r if first <= t < first + 12 else r for t, r in enumerate(plain)]
    assert spiked == expected
    assert len(set(plain)) > 2


@pytest.mark.parametrize("kind", ["cosine", "plateau"])
def test_a_schedule_restored_in_the_spike_goes_on_as_it_would_have(kind: str) -> None:
    def begun() -> tuple[Schedule, SGD]:
        schedule, optimizer, length = a_schedule(kind)
        return LrSpike(0.5, 12).schedule(schedule, optimizer, length), optimizer

    whole = rates(*begun(), 60)
    schedule, optimizer = begun()
    rates(schedule, optimizer, 40)
    states = schedule.state_dict(), optimizer.state_dict()
    schedule, optimizer = begun()
    optimizer.load_state_dict(states[1])
    schedule.load_state_dict(states[0])
    assert rates(schedule, optimizer, 20) == whole[40:]


def test_going_back_in_the_spike_keeps_its_rates() -> None:
    schedule, optimizer, length = a_schedule("cosine")
    spiked = LrSpike(0.5, 12).schedule(schedule, optimizer, length)
    earlier = optimizer.state_dict()
    rates(spiked, optimizer, 33)
    rate = optimizer.param_groups[0]["lr"]
    with spiked.unmoved():
        optimizer.load_state_dict(earlier)
    assert optimizer.param_groups[0]["lr"] == rate > 1


def test_a_rate_spike_is_met_in_training(tmp_path: Path) -> None:
    prepared = job("fault=lr_spike", "scheduler=none", "guard=off")
    prepared.trainer.fit(prepared.data, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    after = [line["lr"] for line in lines]  # the rate of the next step
    assert after == [1e-3] * 39 + [100.0 * 1e-3] * 5 + [1e-3] * 36

"""Signals are noted at once, the impatient are heard, and afterwards all is as it was."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from trainer.data.random import random_regression
from trainer.loop import Trainer
from trainer.signals import ASKED, StopSignals


@pytest.fixture(autouse=True)
def harmless() -> Iterator[dict[int, Any]]:
    """A signal that gets past what is tested must not kill the test run."""
    before = {number: signal.signal(number, lambda *_: None) for number in ASKED}
    handlers = {number: signal.getsignal(number) for number in ASKED}
    yield handlers
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def test_those_that_ask_a_run_to_stop_are_known() -> None:
    assert set(ASKED) == {signal.SIGINT, signal.SIGTERM, signal.SIGUSR1}


@pytest.mark.parametrize("number", ASKED)
def test_a_signal_is_noted_and_kills_nothing(number: int) -> None:
    with StopSignals() as signals:
        assert signals.received is None
        send(number)
        assert signals.received == number
    assert signals.received == number


def test_a_second_interrupt_raises_on_the_spot() -> None:
    with StopSignals() as signals:
        send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            send(signal.SIGINT)
    assert signals.received == signal.SIGINT


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_the_others_may_come_more_than_once(number: int) -> None:
    with StopSignals() as signals:
        for _ in range(3):
            send(number)
    assert signals.received == number


def test_the_handlers_of_before_are_back_afterwards(harmless: dict[int, Any]) -> None:
    with StopSignals():
        inside = {number: signal.getsignal(number) for number in ASKED}
    assert all(inside[number] != harmless[number] for number in ASKED)
    assert {number: signal.getsignal(number) for number in ASKED} == harmless


def test_they_are_back_after_an_error_too(harmless: dict[int, Any]) -> None:
    with pytest.raises(RuntimeError, match="in the run"), StopSignals():
        raise RuntimeError("in the run")
    assert {number: signal.getsignal(number) for number in ASKED} == harmless


def test_a_run_inside_a_run_hands_the_signals_back() -> None:
    with StopSignals() as outer:
        with StopSignals() as inner:
            send(signal.SIGTERM)
        send(signal.SIGUSR1)
    assert (inner.received, outer.received) == (signal.SIGTERM, signal.SIGUSR1)


def test_in_a_thread_it_does_nothing_and_does_no_harm(harmless: dict[int, Any]) -> None:
    seen: list[Any] = []

    def work() -> None:
        with StopSignals() as signals:
            seen.append({number: signal.getsignal(number) for number in ASKED})
            seen.append(signals.received)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [harmless, None]
    assert {number: signal.getsignal(number) for number in ASKED} == harmless


def test_a_signal_as_soon_as_there_is_a_record_ends_the_run_with_a_checkpoint(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def begin(seed: int, step: int) -> None:
        assert (tmp_path / "metrics.jsonl").exists()
        send(signal.SIGTERM)

    monkeypatch.setattr("trainer.loop.seed_first", begin)
    model = nn.Linear(2, 1)
    data = random_regression(samples=32, features=2, targets=1, batch_size=4, val_samples=0)
    summary = Trainer(model, nn.MSELoss(), torch.optim.SGD(model.parameters(), 0.1)).fit(data, tmp_path)
    assert (summary["status"], summary["reason"], summary["steps"]) == ("interrupted", "SIGTERM", 1)
    assert (tmp_path / "summary.json").exists()
    assert (tmp_path / "checkpoints" / "step-00000001.ckpt").exists()

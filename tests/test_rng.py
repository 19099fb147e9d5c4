"""The generators' states: a draw after restoring is the draw that would have come."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trainer import checkpoint
from trainer.rng import rng_state, seed_everything, set_rng_state

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def undisturbed() -> Iterator[None]:
    """Other tests draw from the same generators."""
    before = rng_state(CPU)
    yield
    set_rng_state(CPU, before)


def draws() -> list[Any]:
    """From every generator; an odd number of normals, for they are made in pairs and one is kept."""
    return [
        torch.rand(3).tolist(),
        torch.randn(17).tolist(),
        torch.nn.functional.dropout(torch.ones(20)).tolist(),
        np.random.rand(3).tolist(),
        np.random.randn(3).tolist(),
        [random.random() for _ in range(3)],
        [random.gauss(0, 1) for _ in range(3)],
    ]


@pytest.mark.parametrize("before", range(4))
def test_after_restoring_the_same_numbers_come_again(tmp_path: Path, before: int) -> None:
    seed_everything(before)
    for _ in range(before):
        draws()
    checkpoint.save(tmp_path / "a.ckpt", rng_state(CPU))
    expected = [draws(), draws()]
    draws()
    set_rng_state(CPU, checkpoint.load(tmp_path / "a.ckpt"))
    assert [draws(), draws()] == expected


def test_a_state_does_not_change_when_others_draw() -> None:
    seed_everything(3)
    state = rng_state(CPU)
    first = draws()
    for _ in range(2):
        set_rng_state(CPU, state)
        assert draws() == first


def test_taking_a_state_draws_nothing() -> None:
    seed_everything(3)
    expected = draws()
    seed_everything(3)
    rng_state(CPU)
    assert draws() == expected


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_jobs_with_one_seed_start_alike(seed: int) -> None:
    starts = []
    for _ in range(2):
        seed_everything(seed)
        starts.append(draws())
        draws()
    assert starts[0] == starts[1]


def test_jobs_with_different_seeds_start_differently_in_every_generator() -> None:
    starts = []
    for seed in (0, 1):
        seed_everything(seed)
        starts.append(draws())
    assert all(a != b for a, b in zip(*starts, strict=True))

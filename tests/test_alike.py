"""Which runs can be trained as one, and what is said of the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from losses.combined import CombinedLoss
from losses.cross_entropy import CrossEntropy
from models.mlp import MLP
from trainer.clipping import AGC, ClipByNorm
from trainer.data.random import random_regression
from trainer.ensemble import Run, chunked, grouped
from trainer.ensemble import alike as alike_module
from trainer.guard import Off
from trainer.loop import Trainer


def run(seed: int = 0, **changes: Any) -> Run:
    torch.manual_seed(seed)
    net = changes.pop("model", None) or MLP((6,), (2,), hidden=(8,), dropout=changes.pop("dropout", 0.0))
    loss = changes.pop("loss", None) or nn.MSELoss()
    optimizer = changes.pop("optimizer", torch.optim.Adam)(net.parameters(), 1e-3)
    source = random_regression(64, 6, 2, val_samples=0, seed=seed, **changes.pop("data", {}))
    return Run(Trainer(net, loss, optimizer, seed=seed, device="cpu", **changes), source)


@pytest.mark.parametrize(
    "changes",
    [
        {"clip": ClipByNorm(3.0)},
        {"clip": AGC()},
        {"guard": Off()},
        {"optimizer": torch.optim.SGD},
        {"seed": 1},
        {"objective": "train/loss"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_what_a_run_has_of_its_own_may_differ(changes: dict[str, Any]) -> None:
    assert grouped([run(), run(**changes)]) == ([[0, 1]], {})


def test_weights_that_a_loss_declares_may_differ_and_other_numbers_not() -> None:
    combined = [run(loss=CombinedLoss(alpha)) for alpha in (0.1, 0.2)]
    assert grouped(combined) == ([[0, 1]], {})
    hubers = [run(loss=nn.HuberLoss(delta=delta)) for delta in (0.5, 1.0)]
    assert grouped(hubers)[1] == {0: "no other job is like it", 1: "another loss.delta"}


def test_a_run_whose_first_pass_fails_is_left_to_fail_by_itself() -> None:
    groups, apart = grouped([run(loss=CrossEntropy()) for _ in range(2)])
    assert groups == []
    assert apart == dict.fromkeys((0, 1), "its first pass raises ValueError")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"model": MLP((6,), (2,), hidden=(9,))}, "another shape of model.layers.0.weight"),
        ({"model": MLP((6,), (2,), hidden=(8,), activation="tanh")}, "another model.layers.1"),
        ({"loss": nn.L1Loss()}, "another loss"),
        ({"log_every": 7}, "another trainer.log_every"),
        ({"max_epochs": 3}, "another trainer.limits"),
        ({"data": {"batch_size": 16}}, "data of another batches_per_epoch"),
        ({"detect_anomaly": True}, "trainer.detect_anomaly=true looks at every operation"),
        ({"precision": "bf16"}, "another trainer.precision"),
        ({"precision": "fp16"}, "trainer.precision=fp16 finds a loss scale for one model"),
        ({"compile": "aot_eager"}, "trainer.compile compiles one model"),
        ({"checkpoint_activations": True}, "trainer.checkpoint_activations=true computes one model"),
    ],
)
def test_a_run_that_is_not_like_the_others_is_named_with_the_reason(
    changes: dict[str, Any], reason: str
) -> None:
    groups, apart = grouped([run(), run(**changes), run()])
    assert groups == [[0, 2]]
    assert list(apart) == [1]
    assert reason in apart[1]


def test_images_laid_out_channels_last_are_not_stacked() -> None:
    def member() -> Run:
        net = nn.Sequential(nn.Unflatten(1, (6, 1, 1)), nn.Conv2d(6, 4, 3, padding=1), nn.Flatten())
        return run(model=nn.Sequential(net, nn.Linear(4, 2)), channels_last=True)

    reason = "trainer.channels_last=true lays out one model"
    assert grouped([member(), member()]) == ([], dict.fromkeys((0, 1), reason))


def test_runs_that_go_on_are_grouped_by_their_step() -> None:
    runs = [run() for _ in range(5)]
    for one, step in zip(runs, (0, 4, 4, 6, 0), strict=True):
        one.trainer.step = one.trainer.batch = step
    groups, apart = grouped(runs)
    assert groups == [[0, 4], [1, 2]]
    assert apart == {3: "it goes on from step 6"}


def test_a_model_that_draws_goes_on_with_those_whose_generators_stand_alike() -> None:
    runs = [run(dropout=0.5) for _ in range(4)]
    for one, draws in zip(runs, (1, 2, 1, 2), strict=True):
        generator = torch.Generator().manual_seed(draws)
        one.generators = {"torch": generator.get_state()}
    assert grouped(runs) == ([[0, 2], [1, 3]], {})


def test_a_model_that_draws_needs_one_seed() -> None:
    groups, apart = grouped([run(seed, dropout=0.5) for seed in (0, 0, 1, 1, 2)])
    assert groups == [[0, 1], [2, 3]]
    assert "draws numbers" in apart[4]


def test_a_recurrent_net_is_compared_like_any_other() -> None:
    groups, apart = grouped([run(model=_Recurrent(width)) for width in (3, 3, 4)])
    assert groups == [[0, 1]]
    assert "another shape of model.rnn" in apart[2]


def test_what_cannot_say_whether_it_is_equal_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [run(), run()]
    for one in runs:
        one.trainer.model.table = np.arange(3)  # type: ignore[assignment]
    assert grouped(runs) == ([], {0: "no other job is like it", 1: "another model.table"})


class _Recurrent(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.rnn = nn.RNN(6, width, batch_first=True)
        self.last = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.rnn(x[:, None])[0][:, -1])
        return found


def test_a_group_is_cut_to_the_memory_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [run() for _ in range(5)]
    assert chunked(runs, range(5)) == [[0, 1, 2, 3, 4]]
    monkeypatch.setattr(alike_module, "_free_memory", lambda: 4.2 * alike_module._bytes(runs[0]))
    assert chunked(runs, range(5)) == [[0, 1], [2, 3], [4]]

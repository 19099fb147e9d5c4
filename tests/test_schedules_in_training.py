"""Every schedule of conf/scheduler in the loop: what is refused, undone or resumed does not move it."""

from __future__ import annotations

import json
import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import hydra.utils
import pytest
from conftest import ROOT
from omegaconf import OmegaConf
from saving import SavesAt
from schedule_formulas import PATHS
from test_faults_in_training import data, plain
from test_loop import equal
from torch import nn, optim

from trainer import checkpoint
from trainer.data.tensors import TensorData
from trainer.guard import Guard, Rewind, Skip
from trainer.loop import Trainer
from trainer.schedulers import Horizon

EPOCHS, PER_EPOCH = 6, 8
# What a run so short asks for; the sequence has a plateau and one-cycle in it too.
SHORT = {
    "noam": {"warmup": 5},
    "sequential": {
        "lengths": [2, 3],
        "schedules": [
            {**OmegaConf.load(ROOT / "conf" / "scheduler" / f"{name}.yaml"), **change}
            for name, change in [
                ("plateau", {"warmup": 3, "patience": 0}),
                ("one_cycle", {}),
                ("step", {"step_size": 1}),
            ]
        ],
    },
    "plateau": {"patience": 0, "monitor": "train/loss", "warmup": 10},
    "cosine": {"warmup": 5},
}


class Bad(TensorData):
    """Inputs of NaN in some of the steps."""

    at: Collection[int] = ()

    def batches(self, epoch: int, start: int = 0) -> Any:
        first = epoch * self.batches_per_epoch + start
        for number, (x, y) in enumerate(super().batches(epoch, start), start=first):
            yield (x * math.nan if number in self.at else x), y


def source(at: Collection[int] = ()) -> Bad:
    good = data(PER_EPOCH, size=4)
    bad = Bad(good.train, good.val, batch_size=4)
    bad.at = at
    return bad


def prepared(path: Path, guard: Guard, **more: Any) -> Trainer:
    net = plain()
    optimizer = optim.AdamW(net.parameters(), 0.01, fused=True)
    config = OmegaConf.merge(OmegaConf.load(path), SHORT.get(path.stem, {}))
    horizon = Horizon(EPOCHS * PER_EPOCH, EPOCHS, PER_EPOCH)
    schedule = hydra.utils.instantiate(config, _convert_="all")(optimizer, horizon=horizon)
    limits = {"max_epochs": EPOCHS, "log_every": 1}
    return Trainer(net, nn.MSELoss(), optimizer, scheduler=schedule, guard=guard, **limits, **more)


def rates(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["lr"] for line in lines if "lr" in line]


BY_TIME = [path for path in PATHS if path.stem not in ("plateau", "sequential")]


@pytest.mark.parametrize("path", BY_TIME, ids=lambda path: path.stem)
def test_a_refused_step_moves_the_schedule_on(tmp_path: Path, path: Path) -> None:
    drawn = []
    for at in ((), (0, 7, 8, 20, EPOCHS * PER_EPOCH - 1)):
        folder = tmp_path / str(len(at))
        summary = prepared(path, Skip()).fit(source(at), folder)
        assert (summary["status"], summary["guard"]["skipped"]) == ("completed", len(at))
        drawn.append(rates(folder))
    assert len(drawn[0]) == EPOCHS * PER_EPOCH
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("path", BY_TIME, ids=lambda path: path.stem)
def test_going_back_leaves_the_schedule_in_place(tmp_path: Path, path: Path) -> None:
    drawn = []
    for at in ((), range(30, 33)):
        folder = tmp_path / str(len(at))
        guard = Rewind(max_consecutive=2, every=10, spike_z=math.inf)
        trainer = prepared(path, guard)
        summary = trainer.fit(source(at), folder)
        assert (summary["status"], summary["guard"]["rewound"]) == ("completed", int(bool(at)))
        drawn.append(rates(folder))
    assert drawn[0] == drawn[1]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_run_cut_anywhere_goes_on_bit_for_bit(tmp_path: Path, path: Path) -> None:
    guard = {"max_consecutive": 2, "every": 10, "spike_z": math.inf}
    bad = range(30, 33)
    cuts = (8, 17, 31, 40)
    whole = prepared(path, Rewind(**guard), checkpoints=SavesAt(*cuts))  # type: ignore[arg-type]
    whole.fit(source(bad), tmp_path / "whole")
    for cut in cuts:
        rest = prepared(path, Rewind(**guard), checkpoints=SavesAt(*cuts))  # type: ignore[arg-type]
        file = tmp_path / "whole" / "checkpoints" / f"step-{cut:08d}.ckpt"
        rest.load_state_dict(checkpoint.load(file))
        rest.fit(source(bad), tmp_path / f"rest-{cut}")
        assert equal(rest.state_dict(), whole.state_dict()), f"cut after {cut} steps"

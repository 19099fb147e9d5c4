"""task=verify passes what is sound, fails what is not, by name, and leaves a run alone."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from broken import Branches, Forgetful, Noisy, Overwrites, WrongBackward, model, same, tensors_of
from conftest import SMALL, Outcome
from torch import nn

from losses.combined import CombinedLoss
from trainer.clipping import AGC, SPAM, AdaGC, AutoClip, ClipByNorm, ZClip
from trainer.console import Console
from trainer.data.random import random_regression
from trainer.loop import Trainer
from trainer.tasks.train import Job
from trainer.tasks.verify import Verify

Command = Callable[..., Outcome]
CHECKS = [
    "purity",
    "determinism",
    "gradients",
    "coverage",
    "updates",
    "accumulation",
    "resume",
    "extremes",
]


def job(network: nn.Module, trained: list[nn.Parameter] | None = None, **parts: Any) -> Job:
    """A job on random data, with Adam over the model's or these parameters."""
    data = random_regression(samples=16, features=4, targets=3, batch_size=8)
    optimizer = torch.optim.Adam(trained or network.parameters())
    settings = {"max_epochs": 1, "device": "cpu", **parts}
    trainer = Trainer(network, settings.pop("loss", nn.MSELoss()), optimizer, **settings)
    return Job(Verify(), trainer, data, dict.fromkeys(("data", "model", "loss", "clip"), "x"), {})


def failed(checked: Job) -> dict[str, list[str]]:
    """The names in the failures of each check that fails."""
    done = list(checked.task.checks(checked))
    assert [check.name for check in done] == CHECKS
    return {check.name: [f.name for f in check.failures] for check in done if not check.passed}


@pytest.mark.parametrize(
    "clip", [ClipByNorm(), AutoClip(), ZClip(), AdaGC(), AGC(), SPAM()], ids=lambda c: type(c).__name__
)
@pytest.mark.parametrize("precision", ["fp64", "fp32", "bf16"])
def test_what_is_sound_passes_under_every_clip_and_precision(clip: Any, precision: str) -> None:
    network = model(nn.BatchNorm1d(5), nn.ReLU(), nn.Dropout(0.2))
    checked = job(network, loss=CombinedLoss(), clip=clip, precision=precision)
    before, state = tensors_of(network, checked.trainer.optimizer), repr(clip.state_dict())
    assert failed(checked) == {}
    assert same(before, tensors_of(network, checked.trainer.optimizer))
    assert repr(clip.state_dict()) == state


def test_each_thing_that_is_wrong_is_caught_by_its_name() -> None:
    assert set(failed(job(model(WrongBackward(2.0))))) == {"gradients"}
    detached = failed(job(Branches()))
    assert set(detached["gradients"]) == set(detached["coverage"]) == {"right.weight", "right.bias"}
    network = model()
    assert failed(job(network, list(network[2].parameters()))) == {"coverage": ["0.weight", "0.bias"]}
    assert failed(job(model(Overwrites(silently=False))))["purity"][0].startswith("1.squash (Sigmoid)")
    assert failed(job(model(Noisy())))["determinism"][0] == "1"
    assert failed(job(model(Forgetful())))["resume"][0] == "loss of step 1"


def test_a_part_that_raises_has_failed_where_it_did() -> None:
    class Fussy(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.dtype == torch.float64:
                raise LookupError("no such type")
            return x

    (name,) = failed(job(model(Fussy())))["gradients"]
    assert Path(name.rpartition(":")[0]).name == "test_verify.py"


def test_the_table_and_the_file_say_the_same(tmp_path: Path) -> None:
    checked, stream = job(model(WrongBackward(2.0))), io.StringIO()
    summary = checked.task.run(checked, tmp_path, Console(stream=stream))
    assert (summary["status"], summary["reason"]) == ("failed", "1 of 8 checks failed: gradients")
    written = json.loads((tmp_path / "verify.json").read_text(encoding="utf-8"))
    assert [check["name"] for check in written["checks"]] == CHECKS
    assert [c["name"] for c in written["checks"] if c["verdict"] == "FAIL"] == ["gradients"]
    assert written["checks"][2]["failures"][0]["index"]
    shown = stream.getvalue()
    assert [line.split()[0] for line in shown.split("limit")[1].splitlines()[1:9]] == CHECKS
    assert "gradients  0.weight[" in shown
    assert "2 times too large" in shown
    assert not any(line != line.rstrip() for line in shown.splitlines())


def test_a_command_exits_0_and_is_no_run(command: Command) -> None:
    done = command("task=verify", *SMALL, "hydra.run.dir=here")
    assert (done.code, done.err) == (0, "")
    assert {path.name for path in (done.folder / "here").iterdir()} == {".hydra", ".lock", "verify.json"}
    assert "8 checks passed" in done.out
    resumed = command("resume=auto", *SMALL, "hydra.run.dir=there")
    assert resumed.code == 0
    assert [folder.name for folder in resumed.run_folders] == ["there"]


def test_a_part_that_is_wrong_exits_1(command: Command) -> None:
    Path("mine.py").write_text(
        "from torch import nn\n\nclass Summed(nn.MSELoss):\n    def __init__(self):\n"
        "        super().__init__(reduction='sum')\n"
    )
    done = command("task=verify", *SMALL, "loss._target_=mine.Summed")
    assert done.code == 1
    assert "1 of 8 checks failed: accumulation" in done.out


def test_the_weights_of_a_run_are_checked_and_the_run_goes_on(command: Command) -> None:
    assert command(*SMALL, "hydra.run.dir=run", "checkpoint.every_steps=4").code == 0
    folder = Path("run").resolve()
    kept = {p: p.read_bytes() for p in [*folder.glob("*.json*"), *folder.glob("checkpoints/*")]}
    done = command("task=verify", "resume=run")
    assert done.code == 0
    assert json.loads((folder / "verify.json").read_text(encoding="utf-8"))["step"] == 8
    assert all(path.read_bytes() == content for path, content in kept.items())


@pytest.mark.parametrize(
    ("setting", "message"),
    [("samples=1", "a whole number >= 2"), ("coordinates=0", ">= 1"), ("tolerance=0", "> 0")],
)
def test_an_option_out_of_range_is_refused(command: Command, setting: str, message: str) -> None:
    done = command("task=verify", *SMALL, f"task.{setting}")
    assert done.code == 2
    assert message in done.err

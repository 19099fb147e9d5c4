"""The launcher: a sweep trained as one leaves what it would have left one by one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Outcome

Command = Callable[..., Outcome]
RUN = ["data=random", "data.samples=96", "model=mlp", "loss=combined", "trainer.precision=fp64"]
RUN += ["trainer.max_steps=12", "trainer.log_every=4", "checkpoint.every_steps=6"]
SWEEP = ["-m", *RUN, "clip.max_norm=0.1,1", "loss.alpha=0.3,0.7", "optimizer.lr=1e-3,1e30", "guard=off"]
STACKED = ["hydra/launcher=vectorized", "hydra.launcher.strategy=stacked"]


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return {key: found[key] for key in ("status", "steps", "objective", "guard", "seed")}


def recorded(folder: Path) -> list[Any]:
    """The lines of its record, to nine digits."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{key: value and float(f"{value:.9g}") for key, value in line.items()} for line in lines]


def test_each_job_has_what_it_would_have_had_alone(command: Command) -> None:
    stacked = command(*SWEEP, *STACKED, "hydra.sweep.dir=together")
    assert stacked.code == 0
    assert stacked.out.count("training 8 jobs as one") == 1
    said = stacked.out.splitlines()
    told = [line for line in said if re.match(r"#\d  .*diverged: .*\(together/", line)]
    assert len(told) == 4
    assert all("optimizer.lr=1e+30  " in line for line in told)
    basic = command(*SWEEP, "hydra/launcher=basic", "hydra.sweep.dir=alone")
    assert basic.code == 0
    assert basic.out.count("\t   completed  val/loss ") == basic.out.count("\t   diverged: ") == 4
    for number in map(str, range(8)):
        mine, other = Path("together", number), Path("alone", number)
        names = [{str(p.relative_to(f)) for p in f.rglob("*.*")} for f in (mine, other)]
        events = [{name for name in found if "tfevents" not in name} for found in names]
        assert events[0] == events[1] - {"curves.png"}
        assert sum("tfevents" in name for name in names[0]) == 1
        for name in ("config.yaml", "overrides.yaml"):
            texts = [(folder / ".hydra" / name).read_text() for folder in (mine, other)]
            assert [line for line in texts[0].splitlines() if "hydra" not in line] == [
                line for line in texts[1].splitlines() if "hydra" not in line
            ]
        lines = [(folder / "metrics.jsonl").read_text().splitlines() for folder in (mine, other)]
        for one, two in zip(*(map(json.loads, found) for found in lines), strict=True):
            shown = [{key: v for key, v in line.items() if v is not None} for line in (one, two)]
            assert shown[0] == pytest.approx(shown[1], rel=1e-9, abs=1e-12)
        assert summary(mine)["status"] == summary(other)["status"]
        hydra = yaml.safe_load((mine / ".hydra" / "hydra.yaml").read_text())["hydra"]
        assert hydra["job"]["num"] == int(number)
        assert Path(hydra["runtime"]["output_dir"]) == mine.resolve()
    jobs = [json.loads(Path(f, "sweep.json").read_text())["jobs"] for f in ("together", "alone")]
    assert [job["status"] for job in jobs[0]] == [job["status"] for job in jobs[1]]


def test_a_sweep_trained_as_one_is_kept_and_finished_like_any_other(command: Command) -> None:
    arguments = ["-m", *RUN, "clip.max_norm=0.1,1,10,20", "hydra.sweep.dir=mine", *STACKED]
    assert command(*arguments).code == 0
    before = [recorded(Path("mine", job)) for job in "0123"]
    for job in "123":  # as though they had been killed
        Path("mine", job, "summary.json").unlink()
        Path("mine", job, "checkpoints", "step-00000012.ckpt").unlink()
    Path("mine/3/checkpoints/step-00000006.ckpt").unlink()
    Path("mine/2/checkpoints/step-00000009.ckpt").write_bytes(b"half")
    outcome = command(*arguments)
    assert outcome.code == 0
    assert outcome.out.count("done before, and kept") == 1
    assert outcome.out.count("resumed at step 6") == outcome.out.count("training 2 jobs as one") * 2 == 2
    assert outcome.out.count("not a checkpoint of Trimtab; set aside") == 1
    assert re.search(r"one by one.*: 3 \(it goes on from step 0\)", outcome.out)
    assert outcome.out.count("no checkpoint yet: starting again at step 0") == 1
    assert [recorded(Path("mine", job)) for job in "0123"] == before
    assert {summary(Path("mine", job))["status"] for job in "0123"} == {"completed"}


def test_jobs_that_cannot_be_stacked_run_one_by_one_and_it_is_said_why(command: Command) -> None:
    arguments = ["-m", *RUN, "model.hidden=[4],[5]", "clip.max_norm=0.1,1", *STACKED]
    outcome = command(*arguments, "hydra.sweep.dir=mine")
    assert outcome.code == 0
    assert outcome.out.count("training 2 jobs as one") == 2
    outcome = command("-m", *RUN, "model.hidden=[4],[5],[6]", *STACKED, "hydra.sweep.dir=other")
    assert outcome.code == 0
    assert re.search(r"one by one.*: 1, 2 \(another shape of model.layers.0.weight", outcome.out)
    assert sum(summary(path)["status"] == "completed" for path in Path("other").glob("[012]")) == 3

"""A sweep: a job that fails is named and the others finish; one that was killed is finished later."""

from __future__ import annotations

import json
import math
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Outcome
from processes import forked, wait_for

from trainer.resume import expand
from trainer.sweeps.jobs import SweptJob, close_sweep, swept_before

Command = Callable[..., Outcome]
RUN = ["data=random", "model=mlp", "trainer.max_steps=60", "trainer.log_every=10"]
SAVES = ["checkpoint.every_steps=10"]
FAILING = """
import sys


def loss(kind):
    calls = []

    def call(predictions, targets):
        calls.append(1)
        if len(calls) > 20 and kind:
            {"raise": raising, "exit": sys.exit, "memory": filling}[kind]()
        return (predictions - targets).square().mean()

    return call


def raising():
    raise RuntimeError("the sensor was off\\nand more")


def filling():
    raise MemoryError("no room")
"""


@pytest.fixture
def failing(tmp_path: Path) -> list[str]:
    """Arguments that choose a loss which fails in the way that ``loss.kind`` says."""
    (tmp_path / "my_conf" / "loss").mkdir(parents=True)
    (tmp_path / "my_conf" / "loss" / "failing.yaml").write_text("_target_: failing.loss\nkind: null\n")
    (tmp_path / "failing.py").write_text(FAILING)
    return ["-m", "--config-dir", "my_conf", *RUN, "loss=failing"]


def sweep_folder() -> Path:
    (folder,) = Path("outputs/sweeps").iterdir()
    return folder


def jobs() -> dict[str, Any]:
    """What sweep.json says of each job, by its folder's name."""
    listed = json.loads((sweep_folder() / "sweep.json").read_text())["jobs"]
    return {job["job"]: job for job in listed}


LAUNCHERS = ["vectorized", pytest.param("basic", marks=pytest.mark.soak)]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_job_that_fails_is_named_and_the_others_finish(
    command: Command, failing: list[str], launcher: str
) -> None:
    swept = ["loss.kind=null,raise,exit,memory", "seed=0,1"]
    outcome = command(*failing, *swept, f"hydra/launcher={launcher}")
    assert outcome.code == 1
    assert [job["status"] for job in jobs().values()] == ["completed"] * 2 + ["failed"] * 6
    reasons = ["RuntimeError: the sensor was off", "it called sys.exit(None)", "MemoryError: no room"]
    for reason in reasons:
        assert outcome.out.count(f"failed: {reason} (") == 2
    assert "6 of 8 jobs failed; python train.py resume=outputs/sweeps/" in outcome.out
    assert "in raising" in (sweep_folder() / "2" / "traceback.txt").read_text()
    assert "Traceback" not in outcome.out + outcome.err


def test_failed_jobs_are_tried_again_and_the_others_kept(command: Command, failing: list[str]) -> None:
    assert command(*failing, "loss.kind=null,raise").code == 1
    kept = (sweep_folder() / "0" / "summary.json").stat().st_mtime_ns
    Path("failing.py").write_text(FAILING.replace("if len(calls)", "if False and len(calls)"))
    sys.modules.pop("failing", None)
    outcome = command("--config-dir", "my_conf", f"resume={sweep_folder()}")
    assert outcome.code == 0
    assert outcome.out.count("done before, and kept") == 1
    assert [job["status"] for job in jobs().values()] == ["completed"] * 2
    assert (sweep_folder() / "0" / "summary.json").stat().st_mtime_ns == kept


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_the_same_command_finishes_a_sweep_that_was_killed(
    command: Command, tmp_path: Path, launcher: str
) -> None:
    arguments = ["-m", *RUN, *SAVES, "trainer.max_steps=150", "clip.max_norm=0.1,10"]
    arguments += [f"hydra/launcher={launcher}"]
    if launcher == "vectorized":  # or the first would not be through
        arguments += ["hydra.launcher.strategy=alone"]
    assert command(*arguments).code == 0
    whole = sweep_folder().rename("whole")
    shutil.rmtree("outputs")
    process = forked(*arguments)
    wait_for(lambda: list(tmp_path.glob("outputs/sweeps/*/1/checkpoints/*.ckpt")), process)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    first = (sweep_folder() / "0" / "metrics.jsonl").stat().st_mtime_ns
    outcome = command(*arguments, "resume=auto")
    assert outcome.code == 0
    assert outcome.out.count("done before, and kept") == outcome.out.count("resumed at step") == 1
    assert (sweep_folder() / "0" / "metrics.jsonl").stat().st_mtime_ns == first
    for number in "01":
        records = [(f / number / "metrics.jsonl").read_bytes() for f in (sweep_folder(), whole)]
        assert records[0] == records[1]
    assert command(*arguments, "resume=auto").code == 0  # that one is finished: a new one
    assert len(list(Path("outputs/sweeps").iterdir())) == 2


def test_a_sweep_is_found_by_its_command_whatever_launched_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("outputs/sweeps/1")
    folder.mkdir(parents=True)
    stored = {"hydra": {"overrides": {"task": ["seed=1,2", "sweep=max_norm"]}}}
    (folder / "multirun.yaml").write_text(yaml.safe_dump(stored))
    typed = ["hydra/launcher=vectorized", "sweep=max_norm", "seed=1,2"]
    for flags in ([], ["-m"]):
        found = expand([*flags, *typed, "resume=auto"])
        assert found[0] == "-m"
        assert found[-2:] == ["hydra/launcher=vectorized", "hydra.sweep.dir='outputs/sweeps/1'"]
    assert expand(["-m", "seed=1", "resume=auto"]) == ["-m", "seed=1"]
    assert expand(["-m", "seed=1,2", "sweep_dir=a b"]) == ["-m", "seed=1,2", "hydra.sweep.dir='a b'"]


def test_a_folder_that_holds_another_sweep_is_refused(command: Command) -> None:
    assert command("-m", *RUN, "seed=1,2", "hydra.sweep.dir=mine").code == 0
    outcome = command("-m", *RUN, "seed=1,3", "hydra.sweep.dir=mine")
    assert outcome.code == 2
    assert "mine/1 holds another job: seed (2 -> 3); choose another folder" in outcome.err


def test_a_diverged_job_that_is_kept_still_counts_as_the_worst(command: Command) -> None:
    arguments = ["-m", *RUN, "guard=off", "clip=none", "optimizer=sgd", "optimizer.lr=1e-3,1e30"]
    assert command(*arguments, "hydra.sweep.dir=mine").code == 0
    outcome = command(*arguments, "hydra.sweep.dir=mine")
    assert outcome.code == 0
    assert outcome.out.count("done before, and kept") == 2
    kept = swept_before(Path("mine/1"))
    assert kept is not None
    assert kept["objective"]["value"] == math.inf


def test_a_sweep_over_seeds_is_compared_by_what_else_it_differs_in(command: Command) -> None:
    outcome = command("-m", *RUN, "clip=none,norm", "seed=0,1,2")
    assert outcome.code == 0
    (heading, *_) = [line.split() for line in outcome.out.splitlines() if line.startswith("clip ")]
    assert " ".join(heading) == "clip runs val/loss better by largest norm spikes diverged"
    rows = json.loads((sweep_folder() / "sweep.json").read_text())["comparison"]
    assert [row["variant"] for row in rows] == [{"clip": "none"}, {"clip": "norm"}]
    assert [(row["runs"], row["pairs"]) for row in rows] == [(3, 0), (3, 3)]
    reached = [job["objective"] for job in jobs().values()]
    assert [list(row["values"].values()) for row in rows] == [reached[:3], reached[3:]]
    assert rows[0]["mean"] == pytest.approx(sum(reached[:3]) / 3)
    assert (sweep_folder() / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert f"comparison  {sweep_folder()}/comparison.png" in outcome.out


def test_a_sweep_without_seeds_is_not_compared(command: Command) -> None:
    assert "better by" not in command("-m", *RUN, "clip=none,norm").out
    assert "comparison" not in json.loads((sweep_folder() / "sweep.json").read_text())
    assert not (sweep_folder() / "comparison.png").exists()


def swept(variants: int, seeds: int) -> list[SweptJob]:
    objective = {"tag": "val/loss", "higher_is_better": False}
    return [
        SweptJob(
            [f"clip.max_norm={variant}", f"seed={seed}"],
            Path(str(variant * seeds + seed)),
            {"status": "completed", "objective": objective | {"value": 1.0 + variant + seed / 100}},
        )
        for variant in range(variants)
        for seed in range(seeds)
    ]


def test_of_many_compared_jobs_only_the_best_and_worst_are_listed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    close_sweep(swept(10, 2), tmp_path)
    assert "more, in sweep.json" not in capsys.readouterr().out
    close_sweep(swept(11, 2), tmp_path)
    out = capsys.readouterr().out
    listed = [line.split()[0] for line in out.splitlines() if "completed" in line]
    assert listed == ["0", "1", "2", "19", "20", "21"]
    assert "16 more, in sweep.json" in out
    assert len(json.loads((tmp_path / "sweep.json").read_text())["jobs"]) == 22
    close_sweep(swept(64, 1), tmp_path)  # which no comparison sums up
    out = capsys.readouterr().out
    listed = [line.split()[0] for line in out.splitlines() if "completed" in line]
    assert listed == [*map(str, range(12)), "61", "62", "63"]
    assert "49 more, in sweep.json" in out
    assert all(line == line.rstrip() for line in out.splitlines())


def test_a_picture_that_cannot_be_written_is_told_and_nothing_else_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "comparison.png").mkdir()
    close_sweep(swept(2, 2), tmp_path)
    out = capsys.readouterr().out
    assert "comparison.png is not drawn: [Errno 21] Is a directory" in out
    assert "better by" in out
    assert (tmp_path / "sweep.json").exists()

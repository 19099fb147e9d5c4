"""Sweeps whose jobs run in other processes: what has become of each is told all the same."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, SMALL, Outcome
from hydra.core.plugins import Plugins

from trainer.resume import lock
from trainer.sweeps.gathering import gathered
from trainer.sweeps.jobs import SweptJob

Command = Callable[..., Outcome]
FAILING = """
import os, signal, time
from pathlib import Path


def loss(kind):
    def call(predictions, targets):
        calls.append(1)
        if kind and len(calls) > 20 and not Path("repaired").exists():
            fail(kind)
        return (predictions - targets).square().mean()

    calls = []
    return call


def fail(kind):
    if kind == "raise":
        raise RuntimeError("the sensor was off")
    others = "outputs/sweeps/*/[01]/summary.json"  # which joblib and Ray would lose to the same kill
    while len(list(Path().glob(others))) < 2:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def left(folder: Path, status: str | None, *overrides: str, **more: Any) -> None:
    """What a job that ran elsewhere leaves behind."""
    (folder / ".hydra").mkdir(parents=True)
    (folder / ".hydra" / "overrides.yaml").write_text(json.dumps(list(overrides)))
    if status is not None:
        objective = {"tag": "val/loss", "value": more.get("value"), "higher_is_better": False}
        (folder / "summary.json").write_text(json.dumps({"status": status, "objective": objective}))


def test_every_planned_job_is_accounted_for(tmp_path: Path) -> None:
    for name, status in {"0": "completed", "1": None, "2": None, "10": "diverged"}.items():
        left(tmp_path / name, status, value=0.5 if status == "completed" else None)
    ran = SweptJob(["seed=3"], tmp_path / "3", {"status": "completed", "objective": None})
    planned = {name: [f"seed={name}"] for name in ("0", "1", "2", "3", "4", "10")}
    with lock(tmp_path / "2"):
        jobs = gathered(tmp_path, [ran], planned)
    assert [job.overrides for job in jobs] == list(planned.values())
    assert [job.summary["status"] for job in jobs] == [
        *("completed", "failed", "running", "completed", "failed", "diverged")
    ]
    assert jobs[0].value == 0.5
    assert "its process was killed" in jobs[1].summary["reason"]
    assert jobs[3] is ran
    assert jobs[4].summary["reason"] == "not started"
    assert jobs[5].value == float("inf")


def test_the_jobs_of_a_search_are_the_folders_that_are_there(tmp_path: Path) -> None:
    for number in range(11):
        left(tmp_path / str(number), "completed", f"optimizer.lr={number}")
    (tmp_path / "notes").mkdir()
    jobs = gathered(tmp_path, [], {})
    assert [job.overrides for job in jobs] == [[f"optimizer.lr={number}"] for number in range(11)]


def test_a_launcher_that_gives_up_leaves_a_sweep_that_can_be_finished(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    instantiate = Plugins.instantiate_launcher

    def giving_up(self: Plugins, **context: Any) -> Any:
        launcher = instantiate(self, **context)

        def launch(job_overrides: Any, initial_job_idx: int) -> Any:
            type(launcher).launch(launcher, job_overrides[:1], initial_job_idx)
            raise RuntimeError("the queue is closed\nand more")

        launcher.launch = launch  # type: ignore[method-assign]
        return launcher

    arguments = ["-m", *SMALL, "hydra/launcher=basic", "seed=0,1"]
    with monkeypatch.context() as broken:
        broken.setattr(Plugins, "instantiate_launcher", giving_up)
        outcome = command(*arguments)
    assert outcome.code == 1
    assert "the sweep ended early: RuntimeError: the queue is closed\n" in outcome.out
    assert "not started" in outcome.out
    assert "1 of 2 jobs failed; python train.py resume=outputs/sweeps/" in outcome.out
    finished = command(*arguments, "resume=auto")
    assert finished.code == 0
    assert finished.out.count("done before, and kept") == 1
    assert statuses(Path()) == ["completed"] * 2


def test_a_folder_that_holds_another_search_is_refused(command: Command) -> None:
    Path("mine").mkdir()
    note = "hydra: {overrides: {task: [seed=1]}}"
    Path("mine/multirun.yaml").write_text(note)
    outcome = command("-m", *SMALL, "hydra/sweeper=search", "seed=2", "hydra.sweep.dir=mine")
    assert outcome.code == 2
    assert "mine holds another search; choose another folder" in outcome.err
    assert Path("mine/multirun.yaml").read_text() == note


def statuses(folder: Path) -> list[str]:
    (sweep,) = folder.glob("outputs/sweeps/*/sweep.json")
    return [job["status"] for job in json.loads(sweep.read_text())["jobs"]]


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """A command line of its own: plugins start processes, and warn."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), *arguments],
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def typed(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What such a command came to."""
    with started(folder, *arguments) as process:
        out, errors = process.communicate(timeout=300)
    return subprocess.CompletedProcess(arguments, process.returncode, out, errors)


def needs(extra: str, module: str) -> pytest.MarkDecorator:
    missing = find_spec(f"hydra_plugins.{module}") is None
    return pytest.mark.skipif(missing, reason=f'pip install -e ".[{extra}]"')


PLUGINS = [
    pytest.param("parallel", marks=needs("joblib", "hydra_joblib_launcher")),
    pytest.param("submitit", marks=needs("submitit", "hydra_submitit_launcher")),
    pytest.param("on_ray", marks=needs("ray", "hydra_ray_launcher")),
]


@pytest.mark.parametrize("launcher", PLUGINS)
def test_a_job_that_raises_or_is_killed_elsewhere_is_named_and_tried_again(
    command: Command, tmp_path: Path, launcher: str
) -> None:
    (tmp_path / "my_conf" / "loss").mkdir(parents=True)
    (tmp_path / "my_conf" / "loss" / "failing.yaml").write_text("_target_: failing.loss\nkind: null\n")
    (tmp_path / "failing.py").write_text(FAILING)
    arguments = ["-m", "--config-dir", "my_conf", *SMALL, "loss=failing", "trainer.max_steps=40"]
    arguments += ["loss.kind=null,raise,kill"]
    broken = typed(tmp_path, *arguments, f"hydra/launcher={launcher}")
    assert broken.returncode == 1, broken.stdout + broken.stderr
    assert statuses(tmp_path) == ["completed", "failed", "failed"]
    assert "RuntimeError: the sensor was off" in broken.stdout
    assert "its process was killed" in broken.stdout
    assert "Traceback" not in broken.stdout
    (tmp_path / "repaired").touch()
    finished = command(*arguments, "resume=auto")  # under whatever launcher
    assert finished.code == 0
    assert finished.out.count("done before, and kept") == 1
    assert statuses(tmp_path) == ["completed"] * 3


@pytest.mark.parametrize("launcher", PLUGINS)
def test_the_same_command_finishes_a_sweep_that_was_killed(
    command: Command, tmp_path: Path, launcher: str
) -> None:
    """Jobs that outlive their sweep are left to end; none is run twice."""
    arguments = ["-m", *SMALL, "trainer.max_steps=600", "trainer.log_every=100", "seed=0,1"]
    arguments += ["checkpoint.every_steps=100"]
    with started(tmp_path, *arguments, f"hydra/launcher={launcher}") as sweep:
        while not list(tmp_path.glob("outputs/sweeps/*/*/checkpoints/*.ckpt")):
            assert sweep.poll() is None
            time.sleep(0.01)
        sweep.kill()
    (folder,) = tmp_path.glob("outputs/sweeps/*")
    assert not (folder / "sweep.json").exists()
    outcome, deadline = None, time.monotonic() + 120
    while outcome is None or outcome.code:
        assert time.monotonic() < deadline
        done = {path: path.stat().st_mtime_ns for path in folder.glob("*/summary.json")}
        outcome = command(*arguments, "hydra/launcher=basic", "resume=auto")
        assert outcome.code == 0 or "is in use by process" in outcome.out
        assert all(path.stat().st_mtime_ns == when for path, when in done.items())
    assert statuses(tmp_path) == ["completed"] * 2
    assert command(*arguments, "hydra/launcher=basic", "hydra.sweep.dir=whole").code == 0
    for job in "01":
        records = [(path / job / "metrics.jsonl").read_bytes() for path in (folder, Path("whole"))]
        assert records[0] == records[1]


@needs("optuna", "hydra_optuna_sweeper")
def test_a_search_outlives_a_diverged_run_and_can_be_resumed(tmp_path: Path) -> None:
    arguments = ["-m", "sweep=search", *SMALL, "guard=off", "optimizer=sgd"]
    arguments += ["hydra.sweeper.sampler.n_startup_trials=2", "hydra.sweeper.n_trials=6"]
    arguments += ["optimizer.lr=choice(1e-3,1e-2,1e30)"]
    first = typed(tmp_path, *arguments)
    assert first.returncode == 0, first.stdout + first.stderr
    assert set(statuses(tmp_path)) == {"completed", "diverged"}
    (folder,) = tmp_path.glob("outputs/sweeps/*")
    jobs = json.loads((folder / "sweep.json").read_text())["jobs"]
    best = min(job["objective"] for job in jobs if job["status"] == "completed")
    assert f"best_value: {best}" in (folder / "optimization_results.yaml").read_text()

    otherwise = ["hydra.sweeper.sampler.seed=3", f"hydra.sweep.dir={folder}"]
    another = typed(tmp_path, *arguments, *otherwise)
    assert another.returncode == 2
    assert "holds another job: clip.max_norm" in another.stderr

    (folder / "sweep.json").unlink()  # as though it had been killed
    shutil.rmtree(folder / "5")
    resumed = typed(tmp_path, *arguments, "resume=auto")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert resumed.stdout.count("done before, and kept") == 5
    assert json.loads((folder / "sweep.json").read_text())["jobs"] == jobs

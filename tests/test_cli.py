"""The command line: run folders, exit codes, the record, sweeps, signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, SMALL, Outcome
from processes import forked, wait_for

from trainer import checkpoint
from trainer.pictures.curves import draw_curves

Command = Callable[..., Outcome]


def read(folder: Path) -> tuple[list[dict[str, float]], dict[str, object]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines], json.loads((folder / "summary.json").read_text())


def test_a_run_leaves_the_folder_that_scripts_rely_on(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.pictures.curves.draw_curves", draw_curves)
    outcome = command(*SMALL)
    assert outcome.code == 0
    (folder,) = outcome.run_folders
    assert folder.parent.parent == outcome.folder / "outputs"
    names = {path.name for path in folder.iterdir()}
    assert names >= {".hydra", "metrics.jsonl", "summary.json", "checkpoints", "curves.png"}
    assert any(name.startswith("events.out.tfevents") for name in names)
    assert checkpoint.load(folder / "checkpoints" / "step-00000008.ckpt").keys() >= {
        "model",
        "optimizer",
    }
    lines, summary = read(folder)
    assert [line["step"] for line in lines] == [4, 8]
    assert summary["status"] == "completed"
    assert summary["steps"] == 8
    assert summary.keys() >= {
        *("epochs", "seconds", "steps_per_second", "metrics", "data", "grad_norm", "clip", "guard"),
        *("seed", "versions"),
    }


def test_the_closing_lines_say_what_to_type_next(command: Command) -> None:
    outcome = command(*SMALL)
    (folder,) = outcome.run_folders
    assert f"tensorboard --logdir {folder.relative_to(outcome.folder)}" in outcome.out
    assert "val/loss" in outcome.out


def test_two_runs_started_together_get_two_folders(tmp_path: Path) -> None:
    runs = [forked(*SMALL, folder=tmp_path) for _ in range(2)]
    for run in runs:
        run.join(60)
    assert [run.exitcode for run in runs] == [0, 0]
    assert len(list(tmp_path.glob("outputs/*/*/summary.json"))) == 2


def test_one_folder_is_not_shared_by_two_runs(command: Command) -> None:
    assert command(*SMALL, "hydra.run.dir=mine").code == 0
    before = (Path("mine") / "metrics.jsonl").read_bytes()
    outcome = command(*SMALL, "hydra.run.dir=mine")
    assert outcome.code == 2
    assert "hydra.run.dir=mine already holds a run" in outcome.err
    assert (Path("mine") / "metrics.jsonl").read_bytes() == before


def test_a_diverged_run_exits_1_and_says_why(command: Command) -> None:
    outcome = command(*SMALL, "optimizer=sgd", "optimizer.lr=1e30", "clip=none", "guard=off")
    assert outcome.code == 1
    _, summary = read(outcome.run_folders[0])
    assert summary["status"] == "diverged"
    assert "non-finite loss" in outcome.out


SWEEP = [*SMALL, "loss=combined", "clip.max_norm=0.1,10", "loss.alpha=0.3,0.7"]


def test_a_sweep_trains_every_combination_and_each_as_if_alone(command: Command) -> None:
    swept = command("-m", *SWEEP, "hydra.launcher.strategy=processes")  # stacked, equal but for rounding
    assert swept.code == 0
    (sweep,) = (swept.folder / "outputs" / "sweeps").iterdir()
    jobs = sorted(path for path in sweep.iterdir() if path.is_dir())
    assert [job.name for job in jobs] == ["0", "1", "2", "3"]
    points = [(norm, alpha) for norm in ("0.1", "10") for alpha in ("0.3", "0.7")]
    for job, (norm, alpha) in zip(jobs, points, strict=True):
        alone = f"hydra.run.dir=alone-{job.name}"
        arguments = [f"clip.max_norm={norm}", f"loss.alpha={alpha}", alone]
        assert command(*SMALL, "loss=combined", *arguments).code == 0
        for name in ("metrics.jsonl", "checkpoints/step-00000008.ckpt"):
            assert (job / name).read_bytes() == (Path(f"alone-{job.name}") / name).read_bytes()


def test_a_sweep_ends_with_one_table_of_its_jobs_best_first(command: Command) -> None:
    outcome = command("-m", *SMALL, "optimizer.lr=1e-3,1e-2", "seed=3")
    (sweep,) = (outcome.folder / "outputs" / "sweeps").iterdir()
    values = [read(sweep / job)[1]["objective"]["value"] for job in ("0", "1")]  # type: ignore[index]
    lines = outcome.out.splitlines()
    heading = next(i for i, line in enumerate(lines) if line.split()[:2] == ["job", "val/loss"])
    shown = [line.split() for line in lines[heading + 1 : heading + 3]]
    best_first = sorted([0, 1], key=lambda job: values[job])
    assert [row[0] for row in shown] == [str(job) for job in best_first]
    assert [row[-1] for row in shown] == [["0.001", "0.01"][job] for job in best_first]
    assert f"tensorboard --logdir {sweep.relative_to(outcome.folder)}" in outcome.out


def test_a_diverged_job_does_not_fail_its_sweep(command: Command) -> None:
    bad = ["optimizer=sgd", "optimizer.lr=0.01,1e30", "clip=none", "guard=off"]
    outcome = command("-m", *SMALL, *bad)
    assert outcome.code == 0
    assert "diverged" in outcome.out


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 138)]
)
def test_a_signal_leaves_a_checkpoint_and_exits_128_plus_n(
    tmp_path: Path, number: int, code: int
) -> None:
    arguments = ["data=random", "model=mlp", "loss=mse", "trainer.max_epochs=100000"]
    run = forked(*arguments, "hydra.run.dir=run", folder=tmp_path)
    record = tmp_path / "run" / "metrics.jsonl"
    wait_for(lambda: record.exists() and record.stat().st_size, run)
    assert run.pid is not None
    os.kill(run.pid, number)
    run.join(60)
    out = (tmp_path / "out.txt").read_text()
    assert run.exitcode == code, out
    assert "Traceback" not in out
    _, summary = read(tmp_path / "run")
    assert summary["status"] == "interrupted"
    (path,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert checkpoint.load(path)["counters"]["step"] == summary["steps"]


def test_the_objective_is_returned_to_hydra(command: Command, tmp_path: Path) -> None:
    script = tmp_path / "ask.py"
    script.write_text(
        "import sys, train, hydra\n"
        "from hydra.core.utils import JobReturn\n"
        "from hydra.experimental.callback import Callback\n"
        "class Ask(Callback):\n"
        "    def on_job_end(self, config, job_return, **kwargs):\n"
        "        print('returned', job_return.return_value)\n"
    )
    outcome = command(*SMALL, "objective=train/loss", "+hydra.callbacks.ask._target_=ask.Ask")
    assert outcome.code == 0
    _, summary = read(outcome.run_folders[0])
    assert f"returned {summary['metrics']['train/loss']['last']}" in outcome.out  # type: ignore[index]


def test_help_shows_the_three_commands_and_does_not_import_torch() -> None:
    code = "import sys, train; sys.argv = ['train.py', '--help']; train.main(); "
    code += "assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for line in ("python train.py clip=norm loss=combined", "python train.py -m ", "--config-dir"):
        assert line in done.stdout

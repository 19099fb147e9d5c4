"""The command line as torchrun starts it: one folder, one voice, and a restart that goes on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import ROOT, Outcome
from several import commands, dies_at, table, together
from test_resume import assert_identical

from trainer.distributed import torchrun
from trainer.distributed.peers import introduce
from trainer.distributed.torchrun import Place, expanded
from trainer.resume import lock

Command = Callable[..., Outcome]
RUN = ["data=random", "model=mlp", "model.dropout=0.2", "loss=mse", "trainer.max_steps=20"]
RUN += ["trainer=ddp", "trainer.device=cpu", "trainer.log_every=3", "checkpoint.every_steps=4"]
ENVIRONMENT = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train.py"])
    monkeypatch.setattr("trainer.pictures.curves.draw_curves", lambda folder: None)  # half of the time
    return


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["trainer=default"], "trainer must be ddp or fsdp under torchrun, got default; use"),
        (["trainer=ddp", "task=verify"], "task must be train under torchrun, got verify"),
        (["-m", "trainer=ddp", "seed=0,1"], "-m must be started without torchrun"),
    ],
)
def test_what_several_processes_cannot_do_is_refused_by_the_first(
    command: Command, monkeypatch: pytest.MonkeyPatch, arguments: list[str], line: str
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    outcome = command(*arguments)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert line in outcome.err
    monkeypatch.setenv("RANK", "1")
    outcome = command(*arguments)
    assert (outcome.code, outcome.err) == (2, "")
    assert not list(outcome.folder.iterdir())


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["loss=gradnorm"], "loss=gradnorm must see the whole batch at once, of which each of 2"),
        (["data=random", "model=mlp", "loss=mse", "data.batch_size=333"], "a sample for each of 2"),
    ],
)
def test_what_cannot_be_cut_is_refused(
    command: Command, monkeypatch: pytest.MonkeyPatch, arguments: list[str], line: str
) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    outcome = command("trainer=ddp", *arguments)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert line in outcome.err
    assert not list(outcome.folder.iterdir())


def test_without_torchrun_it_is_the_default(command: Command) -> None:
    several = command(*RUN, "hydra.run.dir=ddp")
    one = command(*RUN, "trainer=default", "hydra.run.dir=default")
    assert (several.code, one.code) == (0, 0), several.err
    assert_identical(Path("ddp"), Path("default"))


def test_processes_have_one_folder_and_one_voice_and_a_restart_goes_on(tmp_path: Path) -> None:
    first, second = commands(*RUN)
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert "completed: 20 steps" in first[1]
    assert second[1:] == ("", "")
    (whole,) = {path.parent for path in tmp_path.rglob("metrics.jsonl")}
    assert (whole / ".hydra" / "overrides.yaml").exists()
    assert [path.name for path in whole.parent.iterdir()] == [whole.name]

    kept = table()
    killed, gone = commands(*RUN, before=dies_at(11), store=kept)
    assert gone is None
    assert killed[0] == 1
    line = killed[2].splitlines()[-1]  # below Hydra's, which says with what arguments
    assert re.fullmatch(r"train\.py: process 1 \(pid \d+\) is gone: the others end too", line)
    (cut,) = {path.parent for path in tmp_path.rglob("metrics.jsonl")} - {whole}
    assert json.loads((cut / "summary.json").read_text())["status"] == "failed"

    damaged = cut / "checkpoints" / "step-00000008.ckpt"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    again, other = commands(*RUN, store=kept)
    assert (again[0], other[0]) == (0, 0), again[2] + other[2]
    assert f"{damaged}: " in again[1]
    assert damaged.with_suffix(".ckpt.damaged").exists(), "set aside once, by one of them"
    assert f"resumed at step 4 from {cut}/checkpoints/step-00000004.ckpt" in again[1]
    assert_identical(cut, whole)


def test_a_folder_in_use_is_refused_once() -> None:
    Path("used").mkdir()
    with lock(Path("used")):
        first, second = commands(*RUN, "hydra.run.dir=used")
    assert (first[0], second[0]) == (2, 2)
    assert "used is in use by process" in first[2]
    assert second[2] == ""


def expansion(place: Place) -> list[str] | str:
    try:
        return expanded(["resume=auto", "clip=norm"])
    except SystemExit as stop:
        return str(stop)


def test_only_a_restart_that_knows_its_folder_resumes(tmp_path: Path) -> None:
    here = [f"hydra.run.dir='{tmp_path}'", f"resume='{tmp_path}'"]
    kept, typed = table(), ["clip=norm"]
    assert together(expansion, store=kept) == [typed] * 2, "there is nothing to go on with"
    kept.set(torchrun.FOLDER, str(tmp_path))
    assert together(expansion, store=kept) == [typed] * 2, "it ended before it was a run"
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text("[clip=norm]")
    assert together(expansion, store=kept) == [[*typed, *here]] * 2
    (tmp_path / "summary.json").write_text('{"status": "diverged"}')
    said = f"{tmp_path} has diverged and is not started anew"
    assert together(expansion, store=kept) == [said] * 2


def test_what_an_earlier_start_has_left_in_the_table_is_not_heard() -> None:
    """Neither of one that all had come to, nor of one that the first process had not."""

    def heard(place: Place) -> bool:
        own, mine = introduce(torchrun.store(30.0), place.rank, place.size), f"said by {place.rank}"
        before = own.check([mine])
        own.set(mine, "")
        own.wait([f"said by {rank}" for rank in range(place.size)])
        return before

    kept = table()
    assert together(heard, 3, store=kept) == [False] * 3
    kept.set("trimtab/asking/2", "one that is gone")
    assert together(heard, 3, store=kept) == [False] * 3


def test_a_place_is_what_the_environment_says_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Place.here() == Place()
    monkeypatch.setenv("WORLD_SIZE", "8")  # which some schedulers set on their own
    assert Place.here() == Place()
    for name, value in (ENVIRONMENT | {"RANK": "1", "LOCAL_RANK": "0"}).items():
        monkeypatch.setenv(name, value)
    assert Place.here() == Place(1, 2, 0)


ONE = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
ONE += ["--max-restarts", "1", str(ROOT / "train.py")]
TWO = ["bash", str(ROOT / "docs" / "several_machines.sh"), "localhost", "2"]


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
@pytest.mark.parametrize(("start", "machines"), [(ONE, 1), (TWO, 2)], ids=["one machine", "two"])
def test_torchrun_starts_a_killed_process_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, start: list[str], machines: int, kind: str
) -> None:
    """Of two machines, which here are one, that of the killed process alone counts a restart."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    long = ["trainer.max_steps=300", "trainer.max_epochs=null", f"hydra.run.dir={tmp_path / 'run'}"]
    command = [*start, *RUN, f"trainer={kind}", *long]
    out = tmp_path / "out.txt"
    with out.open("w") as file:
        pipes = {"stdout": file, "stderr": file, "cwd": ROOT, "start_new_session": True}
        agents = [subprocess.Popen(command, **pipes) for _ in range(machines)]  # type: ignore[call-overload]
        try:
            _wait_for(Path("run", "checkpoints"), agents[-1])
            last = agents[-1].pid
            children = Path(f"/proc/{last}/task/{last}/children").read_text().split()
            os.kill(int(children[-1]), signal.SIGKILL)
            codes = [agent.wait(timeout=180) for agent in agents]
        finally:
            for agent in agents:
                if agent.poll() is None:
                    os.killpg(agent.pid, signal.SIGKILL)
    said = out.read_text()
    assert codes == [0] * machines, said
    assert machines > 1 or re.search(r"process \d \(pid \d+\) is gone: the others end too", said)
    assert "already holds a run" not in said
    assert said.count("resumed at step") == 1, "one restart was enough"
    assert "completed: 300 steps" in said
    lines = Path("run", "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == sorted(set(steps)), "each once"
    assert {*range(3, 301, 3)} <= {*steps}


def _wait_for(path: Path, run: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not path.exists() and run.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)


def test_a_model_that_is_cut_up_is_resumed_and_evaluated_whole(command: Command) -> None:
    first, second = commands(*RUN, "trainer=fsdp", "trainer.max_steps=6", "hydra.run.dir=cut")
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert second[1:] == ("", "")
    exported = command("resume=cut", "task=export")
    assert exported.code == 0, exported.err
    assert Path("cut", "model.safetensors").exists()
    evaluated = command("resume=cut", "task=evaluate")
    assert evaluated.code == 0, evaluated.err
    assert "step 6" in evaluated.out
    on = ["resume_allow=[trainer.max_steps]", "trainer.max_steps=8"]
    resumed = command("resume=cut", "trainer=default", *on)
    assert resumed.code == 0, resumed.err
    assert "resumed at step 6" in resumed.out
    assert "completed: 8 steps" in resumed.out


@pytest.mark.parametrize("name", ["several_machines.sh", "slurm.sh"])
def test_the_examples_for_several_machines_are_well_formed(name: str) -> None:
    subprocess.run(["bash", "-n", str(ROOT / "docs" / name)], check=True)
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    assert "--nproc-per-node" in text
    assert 'train.py "$' in text

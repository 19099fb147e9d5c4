"""A killed run goes on as though nothing had happened, from what is whole and nothing but data."""

from __future__ import annotations

import itertools
import json
import os
import random
import shutil
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import Outcome
from processes import forked, wait_for

from trainer import checkpoint
from trainer.resume import CannotResume, expand, lock, overrides_of

Command = Callable[..., Outcome]
RUN = ["data=random", "model=mlp", "loss=mse", "trainer.max_steps=60", "trainer.log_every=7"]
SAVES = ["checkpoint.every_steps=10", "checkpoint.keep=3"]


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else bool(a == b)


def newest(folder: Path) -> Path:
    return checkpoint.newest_first(folder / "checkpoints")[0]


def assert_identical(folder: Path, whole: Path) -> None:
    assert (folder / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert same(checkpoint.load(newest(folder)), checkpoint.load(newest(whole)))
    assert not list(folder.rglob("*.partial"))


def cut(folder: Path, step: int) -> None:
    """As a kill would leave a run a little after that step: later lines, and half of one, are there."""
    for path in (folder / "checkpoints").iterdir():
        if int(path.stem.removeprefix("step-")) > step:
            path.unlink()
    (folder / "summary.json").unlink()
    with open(folder / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"step": 61, "epo')


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    process = forked(*RUN, *SAVES, f"hydra.run.dir={folder}")
    process.join()
    assert process.exitcode == 0
    return folder


def killed(whole: Path, step: int, name: str = "killed") -> Path:
    """A folder here, as that run would have left it had it been killed after the step."""
    shutil.copytree(whole, name)
    cut(Path(name), step)
    return Path(name)


@pytest.mark.parametrize("extra", [[], ["guard=rewind"], ["clip=value", "trainer.accumulate=2"]])
def test_a_resumed_run_ends_bit_for_bit_where_it_would_have(command: Command, extra: list[str]) -> None:
    assert command(*RUN, *SAVES, *extra, "hydra.run.dir=killed").code == 0
    shutil.copytree("killed", "whole")
    cut(Path("killed"), 40)
    outcome = command("resume=killed")
    assert outcome.code == 0, outcome.err
    assert "resumed at step 40 from killed/checkpoints/step-00000040.ckpt" in outcome.out
    assert_identical(Path("killed"), Path("whole"))


def test_every_step_is_in_the_record_once_after_several_kills(command: Command, tmp_path: Path) -> None:
    kills = random.Random(0)
    long = [*RUN[:3], "trainer.max_steps=3000", "trainer.log_every=10", "checkpoint.every_steps=100"]
    arguments = [*long, "hydra.run.dir=killed"]
    for _ in range(2):
        run = forked(*arguments)
        wait_for((tmp_path / "killed" / "checkpoints").exists, run)
        time.sleep(kills.random() / 2)
        run.kill()
        run.join()
        arguments = ["resume=killed"]
    assert command(*arguments).code in (0, 2)  # 2: it had finished before the kill
    assert command(*long, "hydra.run.dir=whole").code == 0
    assert_identical(tmp_path / "killed", tmp_path / "whole")
    lines = (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in lines]
    assert steps == sorted(set(steps))


def dying(at: int) -> None:
    """From now on this process dies instead of its so-manieth fsync or rename."""
    calls = itertools.count(1)

    def instead_of(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*arguments: Any, **more: Any) -> Any:
            if next(calls) == at:
                os.kill(os.getpid(), signal.SIGKILL)
            return call(*arguments, **more)

        return wrapper

    os.fsync = instead_of(os.fsync)
    Path.replace = instead_of(Path.replace)  # type: ignore[method-assign]


@pytest.mark.parametrize("at", range(1, 6))
def test_a_kill_inside_a_save_loses_nothing(at: int, command: Command, whole: Path) -> None:
    process = forked(*RUN, *SAVES, "hydra.run.dir=killed", before=partial(dying, at))
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert command("resume=killed").code == 0
    assert_identical(Path("killed"), whole)


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "flipped":
        content[len(content) // 2] ^= 1
    changed = {"emptied": b"", "truncated": content[: len(content) // 2], "foreign": b"hello" * 99}
    path.write_bytes(changed.get(how, content))


@pytest.mark.parametrize("how", ["flipped", "truncated", "emptied", "foreign"])
def test_a_damaged_checkpoint_is_named_set_aside_and_the_one_before_it_used(
    command: Command, how: str, whole: Path
) -> None:
    damage(newest(killed(whole, 50)), how)
    outcome = command("resume=killed")
    assert outcome.code == 0
    assert "step-00000050.ckpt" in outcome.out
    assert "resumed at step 40" in outcome.out
    assert (Path("killed") / "checkpoints" / "step-00000050.ckpt.damaged").exists()
    assert_identical(Path("killed"), whole)


def test_a_run_without_a_whole_checkpoint_is_refused_each_time(command: Command, whole: Path) -> None:
    for path in checkpoint.newest_first(killed(whole, 50) / "checkpoints"):
        damage(path, "truncated")
    record = Path("killed/metrics.jsonl").read_bytes()
    for _ in range(2):
        outcome = command("resume=killed")
        assert outcome.code == 2
        assert "has no checkpoint that is whole" in outcome.err
    assert Path("killed/metrics.jsonl").read_bytes() == record


def test_a_changed_configuration_needs_leave(command: Command, whole: Path) -> None:
    killed(whole, 40)
    outcome = command("resume=killed", "optimizer.lr=0.01")
    assert outcome.code == 2
    assert "optimizer.lr (0.001 -> 0.01)" in outcome.err
    assert "resume_allow=[optimizer.lr]" in outcome.err
    assert command("resume=killed", "optimizer.lr=0.01", "resume_allow=[optimizer.lr]").code == 0


def test_another_task_may_be_done_with_a_run_that_was_trained(command: Command, whole: Path) -> None:
    shutil.copytree(whole, "../there")
    outcome = command("task=export", "resume=../there")
    assert outcome.code == 0, outcome.err
    assert (Path("../there") / "model.safetensors").exists()
    outcome = command("resume=../there", "trainer.max_steps=70", "resume_allow=[trainer.max_steps]")
    assert outcome.code == 0, outcome.err
    assert json.loads((Path("../there") / "summary.json").read_text())["steps"] == 70


def test_a_finished_run_can_be_prolonged_but_not_resumed(command: Command, whole: Path) -> None:
    shutil.copytree(whole, "done")
    outcome = command("resume=done")
    assert outcome.code == 2
    assert "resume=done is complete, with 60 steps" in outcome.err
    more = command("resume=done", "trainer.max_steps=80", "resume_allow=[trainer.max_steps]")
    assert more.code == 0
    assert json.loads(Path("done/summary.json").read_text())["steps"] == 80


def test_a_run_killed_before_it_could_say_that_it_was_through_says_so(
    command: Command, whole: Path
) -> None:
    shutil.copytree(whole, "killed")
    (Path("killed") / "summary.json").unlink()
    assert command("resume=killed").code == 0
    assert json.loads((Path("killed") / "summary.json").read_text())["status"] == "completed"
    assert_identical(Path("killed"), whole)


def test_auto_continues_the_newest_unfinished_run_of_the_same_command(command: Command) -> None:
    Path("my_conf").mkdir()
    mine = ["--config-dir", "my_conf"]  # no part of what a run is
    for _ in range(2):
        assert command(*mine, *RUN, *SAVES).code == 0
    unfinished = sorted(Path("outputs").glob("*/*"))[-1]
    assert command(*RUN).code == 0  # another command
    cut(unfinished, 40)
    outcome = command("resume=auto", *mine, *RUN, *SAVES)
    assert outcome.code == 0
    assert f"resumed at step 40 from {unfinished}" in outcome.out
    assert "resumed" not in command("resume=auto", *RUN, *SAVES).out  # now all are finished
    assert len(list(Path("outputs").glob("*/*"))) == 4


def test_a_folder_in_use_is_refused_with_its_owner(command: Command, whole: Path) -> None:
    with lock(killed(whole, 40, "busy")):
        outcome = command("resume=busy")
    assert outcome.code == 2
    assert f"busy is in use by process {os.getpid()}" in outcome.err
    assert command("resume=busy").code == 0


HOSTILE = [
    "model._target_=os.system",
    "+model={_target_: os.system, command: ls}",
    "++x._target_=torch.load",
    "seed=${oc.env:HOME}",
    "hydra.run.dir=/",
    "+hydra.callbacks.x._target_=os.system",
    "hydra/launcher=joblib",
    "model=../../evil",
    "model=/tmp/evil",
    "model=mlp,/tmp/evil",
    "loss={kind:evil}",
    "--config-dir=/tmp",
    "~trainer",
    *("-m", "resume=auto", "x"),
]


@pytest.mark.parametrize("override", HOSTILE)
def test_an_override_that_does_more_than_set_a_value_is_not_typed_again(
    override: str, tmp_path: Path
) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(["seed=1", override]))
    if override.startswith("resume="):
        assert overrides_of(tmp_path) == ["seed=1"]
        return
    with pytest.raises(CannotResume, match="does more than choose an option or set a value"):
        overrides_of(tmp_path)


@pytest.mark.parametrize(
    "override", ["clip=none,norm", "model=mlp", "loss={alpha:1,beta:5e-1}", "loss={alpha:1},{alpha:0}"]
)
def test_what_chooses_options_or_sets_numbers_is_typed_again(override: str, tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump([override]))
    assert overrides_of(tmp_path) == [override]


@pytest.mark.parametrize("text", ["a: 1", "- 1", "!!python/object/apply:os.system ['ls']", "[", "\xff"])
def test_overrides_that_are_no_list_of_texts_are_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text(text, encoding="latin-1")
    with pytest.raises(CannotResume):
        overrides_of(tmp_path)


def test_a_hostile_stored_configuration_is_compared_and_never_built(
    command: Command, whole: Path
) -> None:
    path = killed(whole, 40, "theirs") / ".hydra" / "config.yaml"
    config = yaml.safe_load(path.read_text())
    config["model"]["_target_"] = "pathlib.Path.unlink"
    path.write_text(yaml.safe_dump(config))
    outcome = command("resume=theirs")
    assert outcome.code == 2
    assert "model._target_ (pathlib.Path.unlink -> models.mlp.MLP)" in outcome.err
    path.write_text("!!python/object/apply:os.mkdir ['owned']")
    assert command("resume=theirs").code == 2
    assert not Path("owned").exists()


def test_arguments_without_resume_are_left_alone() -> None:
    assert expand(["-m", "seed=1,2", "resume=null"]) == ["-m", "seed=1,2", "resume=null"]


def test_a_model_of_another_shape_is_refused(command: Command, whole: Path) -> None:
    killed(whole, 40, "other")
    outcome = command("resume=other", "model.hidden=[7]", "resume_allow=[model.hidden]")
    assert outcome.code == 2
    assert "does not fit these parts" in outcome.err
    assert "layers.0.weight of model has shape (50, 10), here (7, 10)" in outcome.err

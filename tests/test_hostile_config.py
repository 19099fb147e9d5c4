"""A run folder from a stranger: no target that its configuration names is imported or called."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import SMALL, Outcome
from hostile import CALLS, CANARY
from watching import ASKED, watched

from trainer.resume import CannotResume, differing_keys, overrides_of

TARGETS = [(path, with_) for with_, paths in CALLS for path in paths.split()]
TARGETS += [("hydra.utils.call", (CANARY,)), ("torch.utils.cpp_extension.load", (CANARY,))]


def plain(value: Any) -> Any:
    """What of a payload's arguments a YAML can hold."""
    return list(map(plain, value)) if isinstance(value, list | tuple) else str(value)


def folder_with(folder: Path, config: Any = None, overrides: Any = ()) -> Path:
    (folder / ".hydra").mkdir(parents=True, exist_ok=True)
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
    return folder


def test_there_are_at_least_a_hundred_targets_and_those_that_hydra_lets_through() -> None:
    names = {path for path, _ in TARGETS}
    assert len(names) >= 100
    assert names >= {
        "torch.load",
        "torch.hub.load",
        "joblib.load",
        "builtins.open",
        "pathlib.Path.unlink",
    }


@pytest.mark.parametrize(("target", "arguments"), TARGETS, ids=lambda value: str(value)[:30])
def test_a_stored_target_is_text_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str, arguments: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    node = {"_target_": target, "_args_": plain(arguments), "_partial_": False}
    own = {"model": {"_target_": "models.mlp.MLP"}, "seed": 0}
    folder = folder_with(tmp_path / "run", {"model": node, "seed": node, "hydra": {"callbacks": node}})
    with watched() as seen:
        differing = differing_keys(folder, own, [])
    assert any(f"model._target_ ({target} -> models.mlp.MLP)" in line for line in differing)
    assert set(seen) <= ASKED
    for override in (
        f"model._target_={target}",
        f"+evil={{_target_: {target}}}",
        f"++hydra.callbacks.x._target_={target}",
        f"loss.alpha={{_target_: {target}}}",
        f"hydra.launcher._target_={target}",
    ):
        folder_with(folder, overrides=["seed=1", override])
        with watched() as seen, pytest.raises(CannotResume, match="does more than"):
            overrides_of(folder)
        assert set(seen) <= ASKED
    assert not (tmp_path / CANARY).exists()


def test_the_command_refuses_such_a_folder_and_touches_nothing(
    command: Callable[..., Outcome],
) -> None:
    assert command(*SMALL, "hydra.run.dir=theirs").code == 0
    for target, arguments in TARGETS[:: len(TARGETS) // 4]:
        shutil.copytree("theirs", "evil")
        config = yaml.safe_load(Path("evil/.hydra/config.yaml").read_text())
        config["model"] = {"_target_": target, "_args_": plain(arguments)}
        Path("evil/.hydra/config.yaml").write_text(yaml.safe_dump(config))
        outcome = command("resume=evil")
        assert outcome.code == 2
        assert target in outcome.err
        assert "Traceback" not in outcome.err
        assert not Path(CANARY).exists()
        shutil.rmtree("evil")

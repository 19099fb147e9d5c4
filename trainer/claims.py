"""Whose folder is it: claimed, or refused, before Hydra makes it."""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, TextIO

from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from trainer.build import BadInput
from trainer.distributed.processes import Processes
from trainer.distributed.torchrun import Place
from trainer.resume import differing_keys, lock


def existing(config: DictConfig) -> Path | None:
    """The folder of a sweep that is to be finished; None for a new one."""
    named = OmegaConf.to_container(config.hydra.sweep, resolve=False)
    if "${unused:" in str(named["dir"]):  # type: ignore[index,call-overload]  # resolving would make it
        return None
    return Path(config.hydra.sweep.dir)


def refuse_another(folder: Path, config: DictConfig) -> None:
    """Lets pass a job's folder that is not there, or that holds the same job."""
    if not (folder / ".hydra" / "config.yaml").exists():
        return
    plain: dict[str, Any] = OmegaConf.to_container(config)  # type: ignore[assignment]
    differing = differing_keys(folder, plain, [])
    if differing:
        raise BadInput(f"{folder} holds another job: {', '.join(differing)}; choose another folder")


def unused(path: str) -> str:
    """The path, or path-2, path-3, …: the first that did not exist. It is made at once, so that no two
    runs get the same, however close they start."""
    for number in count(1):
        candidate = Path(path if number == 1 else f"{path}-{number}")
        candidate.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            candidate.mkdir()
            break
    return str(candidate)


def check_started(config: DictConfig, sweeping: bool = False) -> None:
    """Refuses what several processes cannot do together; the first of them says so."""
    place, choices = Place.here(), config.hydra.runtime.choices
    refusal = None
    if sweeping:
        refusal = "-m must be started without torchrun: each of its processes would run the whole sweep"
    elif not config.trainer.get("processes"):
        refusal = f"trainer must be ddp or fsdp under torchrun, got {choices.trainer}; use trainer=ddp"
    elif choices.task != "train":
        refusal = f"task must be train under torchrun, got {choices.task}; start it without"
    if refusal and place.size > 1:
        raise BadInput(f"{refusal} ({place.size} processes)") if place.rank == 0 else SystemExit(2)


def claim_for_all(config: DictConfig, processes: Processes, resuming: bool) -> None:
    """`claim` by the first of some processes, which tells the others, and those of a restart, where."""
    if processes.size == 1:
        claim(config, resuming)
        return
    folder = ""
    try:
        if processes.leads:
            claim(config, resuming)
            folder = os.path.abspath(config.hydra.run.dir)
    finally:
        folder = processes.meeting.told(folder)
    if not folder:
        raise SystemExit(2)  # the first has said why
    if not processes.leads:
        _held[Path(folder)] = open(os.devnull, encoding="utf-8")  # the lock is the first one's
        with flag_override(config, ["struct", "readonly"], False):
            config.hydra.run.dir, config.hydra.output_subdir = folder, None


def claim(config: DictConfig, resuming: bool) -> None:
    """Makes the run folder, which resolves ``hydra.run.dir``, and refuses one that holds a run."""
    try:
        folder = Path(config.hydra.run.dir)
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, OmegaConfBaseException) as error:
        raise BadInput(f"the run folder cannot be made: {error.__cause__ or error}") from error
    try:
        file = lock(folder)
    except OSError as error:
        raise BadInput(str(error)) from error
    if (folder / "metrics.jsonl").exists() and not resuming:
        file.close()
        raise BadInput(f"hydra.run.dir={folder} already holds a run; choose another or remove it")
    _held[Path(os.path.abspath(folder))] = file


def held(folder: Path) -> TextIO:
    """The lock of a folder: the one it was claimed with, or a new one."""
    return _held.pop(folder, None) or lock(folder)


_held: dict[Path, TextIO] = {}
OmegaConf.register_new_resolver("unused", unused, use_cache=True, replace=True)

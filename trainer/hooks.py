"""What happens before, in and after a job, hung into Hydra.

Hydra makes a run's folder before it calls the job, so `Preflight`, a Hydra callback, composes and
rehearses everything first: a bad command leaves nothing behind. `run` is the job itself.
"""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from itertools import count, islice
from math import prod
from pathlib import Path
from typing import Any, TextIO

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from trainer.build import BadInput, prepare
from trainer.closing import short
from trainer.composing import Composing
from trainer.console import Console
from trainer.gathering import gathered
from trainer.jointly import Outcomes
from trainer.plotting import Plots
from trainer.resume import SWEEP, CannotResume, differing_keys, lock, overrides_of, status_of
from trainer.sweep import SweptJob, close_sweep, keep_failure, swept_before
from trainer.tasks import Job, Train

MOST_BYTES = 2**28  # of the parameters of jobs that are kept from their rehearsal until they start
FIRST = "first.yaml"  # what a search chose for a job
MOST_JOBS = 10_000  # each is composed and rehearsed before the first starts, about 0.1 s


def run(config: DictConfig) -> tuple[int, float | None]:
    """Runs the task of a config in the folder that Hydra made; returns the exit code, and the objective
    for a sweeper."""
    hydra_config = HydraConfig.get()
    folder, choices = Path(hydra_config.runtime.output_dir), hydra_config.runtime.choices
    sweeping = hydra_config.mode == RunMode.MULTIRUN
    if sweeping:
        if not _planned:
            _keep_choice(folder, config)
        if (summary := _trained.pop(folder, None)) is not None:
            print(f"\t   {short(summary)}" if summary["objective"] else "", flush=True)
        elif (summary := swept_before(folder)) is None:
            summary = _attempt(config, choices, folder)
        else:
            print("\t   done before, and kept", flush=True)
        _finished.append(SweptJob(list(hydra_config.overrides.task), folder, summary))
    else:
        job = _prepared.pop(OmegaConf.to_yaml(config), None) or prepare(config, choices)
        with _locks.pop(folder, None) or lock(folder):
            summary = job.run(folder, Console())
    return _exit_code(summary, sweeping), (summary["objective"] or {}).get("value")


def _attempt(config: DictConfig, choices: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """A job of a sweep, continued if it was cut short; its failure is told and is not that of others."""
    if (folder / "metrics.jsonl").exists():
        config = OmegaConf.merge(config, {"resume": str(folder)})  # type: ignore[assignment]
    try:
        with lock(folder):
            job = prepare(config, choices)
            return job.run(folder, Console(brief=True))
    except (Exception, SystemExit) as error:  # whatever a user's part does, sys.exit() included
        return keep_failure(folder, error)


def _keep_choice(folder: Path, config: DictConfig) -> None:
    """Refuses to take a run for another that a search chose earlier: BadInput, naming what differs.
    Hydra's own note of it is gone when a job starts."""
    first = folder / ".hydra" / FIRST
    if not first.exists():
        OmegaConf.save(config, first)
        return
    plain: dict[str, Any] = OmegaConf.to_container(config)  # type: ignore[assignment]
    if differing := differing_keys(folder, plain, config.resume_allow, FIRST):
        raise BadInput(
            f"{folder} holds another job: {', '.join(differing)}; a search goes on by the same command, "
            "resume=auto added, or choose another folder"
        )


def is_fresh(folder: Path) -> bool:
    """Whether a job of a sweep has not been started before."""
    return not (folder / "metrics.jsonl").exists() and status_of(folder) is None


def ready(number: int, config: DictConfig, choices: Mapping[str, str], folder: Path) -> Job | None:
    """A job of a sweep that may be trained with others, its folder locked; None for one that has to run
    by itself, because it does something else, or cannot even be prepared."""
    try:
        job = _ready.pop(number, None) or prepare(config, choices)
        if not isinstance(job, Job) or type(job.task) is not Train:
            return None
        _locks[folder] = lock(folder)
        return job
    except (Exception, SystemExit):  # `run` will meet it again, and tell
        return None


def trained_jointly(jobs: Mapping[int, tuple[Job, Path]], outcomes: Outcomes) -> None:
    """Keeps what became of jobs that were trained with others until `run` is asked for them."""
    for number, (_, folder) in jobs.items():
        _locks.pop(folder).close()
        if number in outcomes.errors:
            _trained[folder.resolve()] = keep_failure(folder, outcomes.errors[number])
        elif number in outcomes.summaries:
            _trained[folder.resolve()] = outcomes.summaries[number]


def _exit_code(summary: Mapping[str, Any], sweeping: bool) -> int:
    if summary["status"] == "interrupted":
        return 128 + signal.Signals[summary["reason"]]
    # A diverged job of a sweep is a finding, which its objective tells; alone it is a failure.
    return int(summary["status"] not in (("completed", "diverged") if sweeping else ("completed",)))


class Preflight(Callback):
    """Refuses a bad command before Hydra makes a folder for it; named in ``hydra.callbacks``."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Composes a single run, and keeps it for `run`."""
        job_config = without_hydra(config)
        job = prepare(job_config, config.hydra.runtime.choices)
        _claim(config, resuming=bool(job_config.get("resume")))
        _prepared[OmegaConf.to_yaml(job_config)] = job

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Composes every job of a basic sweep; one that is wrong stops all before the first starts."""
        for kept in (_finished, _ready, _trained, _planned, _sweep):
            kept.clear()
        if not config.hydra.sweeper._target_.endswith("BasicSweeper"):  # it decides as it goes
            _begin_search(config)
            return
        shared: dict[str, Any] = {}
        loader: Any = GlobalHydra.instance().config_loader()
        loader.load_sweep_config = Composing(loader.load_sweep_config)
        keeps = config.hydra.launcher._target_.endswith("VectorizedLauncher")
        room = MOST_BYTES
        for number, overrides in enumerate(_jobs_of(config, loader)):
            job_config = loader.load_sweep_config(config, list(overrides))
            with flag_override(job_config, ["struct", "readonly"], False):
                job_config.hydra.job.num = number
            subdir, plain = job_config.hydra.sweep.subdir, without_hydra(job_config)
            if subdir in _planned:
                raise BadInput(
                    f"hydra.sweep.subdir must differ from job to job, got {subdir!r} for two; "
                    "${hydra.job.num} does"
                )
            _planned[subdir] = [item for item in overrides if not item.startswith("hydra")]
            job = prepare(plain, job_config.hydra.runtime.choices, shared)
            if keeps and isinstance(job, Job):
                room -= sum(parameter.nbytes for parameter in job.trainer.parameters)
                _ready.update({number: job} if room > 0 else {})
            if (folder := _existing(config)) is not None:
                _refuse_another(folder / subdir, plain)
        _sweep.append(Path(config.hydra.sweep.dir))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Shows all jobs in one table, best first; ends the process with what they ended with, of which
        it knows nothing where a launcher ran them in others."""
        if code := _close():
            raise SystemExit(code)


def sweep_broke(error: Exception) -> bool:
    """Says that a launcher or a search gave up, and what has become of the jobs; False if no sweep was
    under way."""
    if not _sweep:
        return False
    cause = error.__cause__ or error  # Hydra wraps what a sweeper's constructor says
    print(f"the sweep ended early: {type(cause).__name__}: {str(cause).strip()}".splitlines()[0])
    _close()
    return True


def _close() -> int:
    folder = _sweep.pop()
    jobs = gathered(folder, _finished, _planned)
    close_sweep(jobs, folder)
    return max((_exit_code(job.summary, sweeping=True) for job in jobs), default=0)


def _begin_search(config: DictConfig) -> None:
    """Makes the folder of a search, with what a basic sweep keeps in it, so that it can be resumed;
    BadInput if the folder holds another."""
    folder = Path(config.hydra.sweep.dir)
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / SWEEP).exists():
        OmegaConf.save(config, folder / SWEEP)
    typed = {item for item in config.hydra.overrides.task if not item.startswith(("resume", "task="))}
    try:
        same = typed == set(overrides_of(folder))
    except CannotResume as error:
        raise BadInput(str(error)) from error
    if not same:
        raise BadInput(f"{folder} holds another search; choose another folder")
    _sweep.append(folder)


def _jobs_of(config: DictConfig, loader: Any) -> list[list[str]]:
    """The overrides of each job of a basic sweep.

    Raises:
        BadInput: if there are none, too many, or two that are the same.
    """
    arguments = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    arguments += config.hydra.overrides.task
    overrides = OverridesParser.create(config_loader=loader).parse_overrides(arguments)
    swept = [override.sweep_string_iterator() for override in overrides if override.is_sweep_override()]
    number = prod(len(list(islice(values, MOST_JOBS + 1))) for values in swept)
    if not number:
        raise BadInput("the sweep is empty: one of its keys has no value")
    if number > MOST_JOBS:
        raise BadInput(f"the sweep must have at most {MOST_JOBS} jobs, got {number} or more; split it")
    (jobs,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    if len({tuple(job) for job in jobs}) < len(jobs):
        raise BadInput("the sweep holds the same job twice: list every value once")
    return [list(job) for job in jobs]


def _existing(config: DictConfig) -> Path | None:
    """The folder of a sweep that is to be finished; None for a new one."""
    named = OmegaConf.to_container(config.hydra.sweep, resolve=False)
    if "${unused:" in str(named["dir"]):  # type: ignore[index,call-overload]  # resolving would make it
        return None
    return Path(config.hydra.sweep.dir)


def _refuse_another(folder: Path, config: DictConfig) -> None:
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


def _claim(config: DictConfig, resuming: bool) -> None:
    """Makes the run folder, which resolves ``hydra.run.dir``, and refuses one that holds a run."""
    try:
        folder = Path(config.hydra.run.dir)
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, OmegaConfBaseException) as error:
        raise BadInput(f"the run folder cannot be made: {error.__cause__ or error}") from error
    try:
        _locks[Path(os.path.abspath(folder))] = lock(folder)
    except OSError as error:
        raise BadInput(str(error)) from error
    if (folder / "metrics.jsonl").exists() and not resuming:
        raise BadInput(f"hydra.run.dir={folder} already holds a run; choose another or remove it")


def without_hydra(config: DictConfig) -> DictConfig:
    """A copy of the config without Hydra's own node."""
    content: dict[str, Any] = config.__dict__["_content"]  # to copy that too would take most of the time
    hydra_node = content.pop("hydra")
    try:
        return copy.deepcopy(config)
    finally:
        content["hydra"] = hydra_node


# These are handed from one of Hydra's hooks to another, which share nothing but this module.
_prepared: dict[str, Job | Plots] = {}
_finished: list[SweptJob] = []
_locks: dict[Path, TextIO] = {}
_ready: dict[int, Job] = {}
_trained: dict[Path, dict[str, Any]] = {}
_planned: dict[str, list[str]] = {}
_sweep: list[Path] = []  # the folder of the one under way
OmegaConf.register_new_resolver("unused", unused, use_cache=True, replace=True)

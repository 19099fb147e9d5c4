"""From a Hydra config to plain objects, and from what went wrong to one line for people.

Beside ``train.py`` and the launcher this is the only file that knows Hydra. Everything is composed and
rehearsed before Hydra makes a folder: `Preflight` runs as a Hydra callback, `run` takes over from it.
"""

from __future__ import annotations

import copy
import itertools
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra.utils
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import InstantiationException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, flag_override
from omegaconf.errors import OmegaConfBaseException

from trainer import checks, targets
from trainer.console import Console
from trainer.optimizers import check_settings
from trainer.record import check_tag
from trainer.rehearsal import rehearse
from trainer.rng import seed_everything
from trainer.schedulers import Horizon
from trainer.sweep import SweptJob, print_sweep
from trainer.tasks import Job

GROUPS = ("data", "model", "loss", "clip", "guard", "optimizer", "scheduler", "trainer", "task")

# A user's own package lies where the command is typed; ours, if of the same name, comes first.
sys.path.append(os.getcwd())


class BadInput(SystemExit):
    """One line on what is wrong with a command, its config or its data.

    A SystemExit, because Hydra turns any ordinary exception of a callback into a warning.
    """


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a job tells the command line and the sweeper."""

    exit_code: int
    objective: float | None


def run(config: DictConfig) -> Outcome:
    """Runs the task of a config in the folder that Hydra made."""
    hydra_config = HydraConfig.get()
    job = _prepared.pop(OmegaConf.to_yaml(config), None)
    job = job or prepare(config, hydra_config.runtime.choices)
    sweeping = hydra_config.mode == RunMode.MULTIRUN
    seed_everything(config.seed)
    folder = Path(hydra_config.runtime.output_dir)
    summary = job.task.run(job, folder, Console(brief=sweeping))
    if sweeping:
        _finished.append(SweptJob(list(hydra_config.overrides.task), folder, summary))
    return Outcome(_exit_code(summary, sweeping), summary["objective"]["value"])


def _exit_code(summary: Mapping[str, Any], sweeping: bool) -> int:
    if summary["status"] == "interrupted":
        return 128 + signal.Signals[summary["reason"]]
    # A diverged job of a sweep is a finding, which its objective tells; alone it is a failure.
    return int(summary["status"] != "completed" and not sweeping)


def prepare(config: DictConfig, choices: Mapping[str, str]) -> Job:
    """Composes and rehearses all that the config names, without leaving a trace on the disk.

    Args:
        config: the job's config, without Hydra's own node.
        choices: the option chosen in each config group.

    Raises:
        BadInput: one line naming the value, the rule and the remedy.
    """
    try:
        return _compose(config, {group: choices.get(group, "?") for group in GROUPS})
    except ValueError as error:
        raise BadInput(" ".join(str(error).split())) from error


def _compose(config: DictConfig, choices: dict[str, str]) -> Job:
    part = _Parts(config, choices)
    seed = checks.whole("seed", config.get("seed"), below=2**32, remedy="0 is as good as any")
    task, clip, loss, guard = (part(name) for name in ("task", "clip", "loss", "guard"))
    checkpoints = part("checkpoint")
    data = part("data", optional={"seed": seed})
    check_tag("objective", config.get("objective"), data.metrics)
    seed_everything(seed)
    shapes = {"input_shape": data.input_shape, "output_shape": data.output_shape}
    model = part("model", optional=shapes)
    with part.naming("optimizer"):
        check_settings(config.optimizer)
    optimizer = part("optimizer", [*model.parameters(), *getattr(loss, "parameters", list)()])
    with part.naming("trainer"):
        limits = config.trainer
        accumulate = checks.whole("accumulate", limits.accumulate, at_least=1)
        horizon = Horizon.of(data.batches_per_epoch, accumulate, limits.max_epochs, limits.max_steps)
    schedule = part("scheduler", optimizer, optional={"horizon": horizon})
    with part.naming("scheduler"):
        check_tag("monitor", getattr(schedule, "monitor", None), data.metrics)
    trainer = part(
        "trainer",
        model,
        loss,
        optimizer,
        clip=clip,
        scheduler=schedule,
        guard=guard,
        checkpoints=checkpoints,
        objective=config.get("objective"),
        seed=seed,
    )
    rehearse(trainer, data, {name: f"{name}={choice}" for name, choice in choices.items()})
    return Job(task, trainer, data, choices, _numbers(config))


class _Parts:
    """Builds the part that each group of a config names."""

    def __init__(self, config: DictConfig, choices: Mapping[str, str]) -> None:
        self.config = config
        self.choices = choices

    def __call__(
        self, group: str, *args: Any, optional: Mapping[str, Any] | None = None, **more: Any
    ) -> Any:
        """The object of a group; ``optional`` holds what it gets only if it has such a parameter."""
        node = self.config.get(group)
        with self.naming(group):
            if not isinstance(node, DictConfig) or "_target_" not in node:
                raise ValueError(f"{group} must name a _target_, got {node!r}; use {group}=<option>")
            target = targets.locate(node["_target_"])
            optional = optional or {}
            more |= {name: optional[name] for name in targets.accepted(target, optional)}
            keywords = [str(key) for key in node if not str(key).startswith("_")]
            targets.check_keywords(target, [*keywords, *more])
            factory = hydra.utils.instantiate(node, _partial_=True, _convert_="all")
            return factory(*args, **more)

    @contextmanager
    def naming(self, group: str) -> Iterator[None]:
        """Puts the group in front of what a constructor complains about."""
        try:
            yield
        except InstantiationException as error:
            raise ValueError(f"{group}: {error.__cause__ or error}") from error
        except (ValueError, TypeError) as error:
            known = str(error).split(" ")[0].split("[")[0] in (self.config.get(group) or {})
            lead = f"{group}." if known else f"{group}={self.choices.get(group, '?')}: "
            raise ValueError(f"{lead}{error}") from error


def _numbers(config: DictConfig) -> dict[str, float]:
    """The numbers that runs are compared by, by their dotted keys."""
    flat: dict[str, float] = {}

    def walk(prefix: str, node: Any) -> None:
        for key, value in node.items():
            if isinstance(value, dict):
                walk(f"{prefix}{key}.", value)
            elif isinstance(value, int | float):
                flat[f"{prefix}{key}"] = value

    compared = ("seed", "data", "model", "loss", "clip", "optimizer", "scheduler")
    walk("", OmegaConf.to_container(OmegaConf.masked_copy(config, list(compared)), resolve=True))
    return flat


class Preflight(Callback):
    """Refuses a bad command before Hydra makes a folder for it; named in ``hydra.callbacks``."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Composes a single run, and keeps it for `run`."""
        job_config = _without_hydra(config)
        job = prepare(job_config, config.hydra.runtime.choices)
        _claim(config)
        _prepared[OmegaConf.to_yaml(job_config)] = job

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Composes every job of a basic sweep; one that is wrong stops all before the first starts."""
        if not config.hydra.sweeper._target_.endswith("BasicSweeper"):
            return  # other sweepers decide on their jobs as they go
        loader = GlobalHydra.instance().config_loader()
        arguments = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
        arguments += config.hydra.overrides.task
        overrides = OverridesParser.create(config_loader=loader).parse_overrides(arguments)
        (jobs,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
        if not jobs:
            raise BadInput("the sweep is empty: one of its keys has no value")
        if len({tuple(job) for job in jobs}) < len(jobs):
            raise BadInput("the sweep holds the same job twice: list every value once")
        _finished.clear()
        for job in jobs:
            job_config = loader.load_sweep_config(config, list(job))
            prepare(_without_hydra(job_config), job_config.hydra.runtime.choices)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Shows all jobs in one table, best first."""
        print_sweep(_finished, Path(config.hydra.sweep.dir))


def unused(path: str) -> str:
    """The path, or path-2, path-3, …: the first that did not exist. It is made at once, so that no two
    runs get the same, however close they start."""
    for number in itertools.count(1):
        candidate = Path(path if number == 1 else f"{path}-{number}")
        candidate.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            candidate.mkdir()
            break
    return str(candidate)


def _claim(config: DictConfig) -> None:
    """Makes the run folder, which resolves ``hydra.run.dir``, and refuses one that holds a run."""
    try:
        folder = Path(config.hydra.run.dir)
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, OmegaConfBaseException) as error:
        raise BadInput(f"the run folder cannot be made: {error.__cause__ or error}") from error
    if (folder / "metrics.jsonl").exists():
        raise BadInput(f"hydra.run.dir={folder} already holds a run; choose another or remove it")


def _without_hydra(config: DictConfig) -> DictConfig:
    config = copy.deepcopy(config)
    with flag_override(config, ["struct", "readonly"], False):
        del config["hydra"]
    return config


# Both are handed from one of Hydra's hooks to another, which share nothing but this module.
_prepared: dict[str, Job] = {}
_finished: list[SweptJob] = []
OmegaConf.register_new_resolver("unused", unused, use_cache=True, replace=True)

"""A launch: what `hydra.core.utils.run_job` does for one job, for many; imported when it is needed."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import (
    JobReturn,
    JobRuntime,
    JobStatus,
    configure_log,
    env_override,
    filter_overrides,
    setup_globals,
)
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, flag_override

from trainer import hooks
from trainer.composing import Yaml
from trainer.jointly import train_jointly

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Start:
    """A job about to run: its number, what was typed, its config with and without Hydra's node."""

    number: int
    overrides: Sequence[str]
    config: DictConfig
    plain: DictConfig
    folder: Path


def launch(
    context: HydraContext,
    task: TaskFunction,
    config: DictConfig,
    job_overrides: Sequence[Sequence[str]],
    first: int,
    strategy: str,
) -> list[JobReturn]:
    """Runs the jobs; see `VectorizedLauncher.launch`."""
    setup_globals()
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    sweep = Path(str(config.hydra.sweep.dir))
    sweep.mkdir(parents=True, exist_ok=True)
    log.info(f"Launching {len(job_overrides)} jobs locally")
    starts = [
        _start(context, config, first + place, list(overrides), sweep)
        for place, overrides in enumerate(job_overrides)
    ]
    written, yaml = set(), Yaml()
    ready = {}
    for start in starts:
        if hooks.is_fresh(start.folder):
            _begin(context, task, start, yaml)
            written.add(start.number)
            job = hooks.ready(
                start.number, start.plain, start.config.hydra.runtime.choices, start.folder
            )
            if job is not None:
                ready[start.number] = (job, start.folder)
    outcomes = train_jointly(ready, strategy)
    _tell(outcomes.apart, len(starts))
    hooks.trained_jointly(ready, outcomes)
    returns = []
    for start in starts:
        log.info(f"\t#{start.number} : {' '.join(filter_overrides(start.overrides))}")
        if start.number not in written:
            _begin(context, task, start, yaml)
        done = start.number in outcomes.summaries  # nothing is left that could log
        returns.append(_run(context, task, start, logs=not done))
        if not done:
            configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    return returns


def _start(
    context: HydraContext, master: DictConfig, number: int, overrides: list[str], sweep: Path
) -> Start:
    config = context.config_loader.load_sweep_config(master, overrides)
    with flag_override(config, ["struct", "readonly"], False):
        config.hydra.job.id = config.hydra.job.num = number
        folder = sweep / str(OmegaConf.select(config, "hydra.sweep.subdir"))
        config.hydra.runtime.output_dir = os.path.abspath(folder)
    return Start(number, overrides, config, hooks.without_hydra(config), folder)


def _begin(context: HydraContext, task: TaskFunction, start: Start, yaml: Yaml) -> None:
    """Makes the job's folder, with what Hydra keeps in it."""
    start.folder.mkdir(parents=True, exist_ok=True)
    if start.config.hydra.output_subdir is not None:
        kept = Path(start.config.hydra.runtime.output_dir, start.config.hydra.output_subdir)
        kept.mkdir(exist_ok=True)
        texts = {
            "config.yaml": yaml(start.plain),
            "hydra.yaml": yaml(start.config.hydra, "hydra"),
            "overrides.yaml": OmegaConf.to_yaml(start.config.hydra.overrides.task),
        }
        for name, text in texts.items():
            (kept / name).write_text(text, encoding="utf-8")
    context.callbacks.on_job_start(config=start.config, task_function=task)


def _run(context: HydraContext, task: TaskFunction, start: Start, logs: bool) -> JobReturn:
    """Calls the task, in the surroundings that Hydra makes for it."""
    before = HydraConfig.instance().cfg
    HydraConfig.instance().cfg = start.config  # whole: to take out its own node would copy all
    answer = JobReturn(overrides=list(start.overrides), cfg=start.plain)
    answer.hydra_cfg = start.config
    answer.working_dir, answer.task_name = os.getcwd(), JobRuntime.instance().get("name")
    try:
        if logs:
            configure_log(start.config.hydra.job_logging, start.config.hydra.verbose)
        with env_override(start.config.hydra.job.env_set):
            try:
                answer.return_value = task(start.plain)
                answer.status = JobStatus.COMPLETED
            except Exception as error:
                answer.return_value, answer.status = error, JobStatus.FAILED
            context.callbacks.on_job_end(config=start.config, job_return=answer)
    finally:
        HydraConfig.instance().cfg = before
    return answer


def _tell(apart: dict[int, str], jobs: int) -> None:
    """Which jobs run alone, and why; a line for each reason."""
    by_reason: dict[str, list[int]] = {}
    for number, reason in apart.items():
        by_reason.setdefault(reason, []).append(number)
    for reason, numbers in by_reason.items():
        named: Any = "all jobs" if len(numbers) == jobs else ", ".join(map(str, numbers))
        print(f"one by one: {named} ({reason})", flush=True)

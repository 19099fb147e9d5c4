"""A launch: what `hydra.core.utils.run_job` does for one job, for many; imported when it is needed."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO, cast

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
from trainer.console import Console
from trainer.sweeps.composing import Yaml
from trainer.sweeps.crew import Crew
from trainer.sweeps.display import Display
from trainer.sweeps.jobs import swept_before
from trainer.sweeps.pulse import Pulse
from trainer.sweeps.workers import Lines, Tell

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Start:
    """A job about to run: its number, what was typed, its config with and without Hydra's node."""

    number: int
    overrides: Sequence[str]
    config: DictConfig
    plain: DictConfig
    folder: Path

    @property
    def choices(self) -> Mapping[str, str]:
        """The option of each config group."""
        choices: Mapping[str, str] = self.config.hydra.runtime.choices
        return choices


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
    starts = {
        first + place: _start(context, config, first + place, list(overrides), sweep)
        for place, overrides in enumerate(job_overrides)
    }
    folders = {number: start.folder for number, start in starts.items()}
    typed = {number: filter_overrides(start.overrides) for number, start in starts.items()}
    display = Display(typed, folders)
    yaml = Yaml()
    returns: dict[int, JobReturn] = {}
    ready = {}

    def alone(number: int, tell: Tell) -> dict[str, Any]:
        start = starts[number]
        console = Console(stream=cast(TextIO, Lines(tell, number)), brief=True)
        watch = partial(Pulse(tell, [number]).view, number)
        with _surroundings(start, config):
            job, _ = ready.get(number, (None, None))
            return hooks.attempt(start.plain, start.choices, start.folder, console, job, watch)

    def ended(number: int, summary: dict[str, Any]) -> None:
        hooks.has_ended(starts[number].folder, summary)
        returns[number] = _run(context, task, starts[number])

    for number, start in starts.items():
        _begin(context, task, start, yaml)
        if (summary := swept_before(start.folder)) is not None:
            display.ended(number, summary, kept=True)
            ended(number, summary)
        elif (job := hooks.ready(number, start.plain, start.choices, start.folder)) is not None:
            ready[number] = (job, start.folder)
    crew = Crew(ready, folders, alone, ended, display, strategy)
    with _shown(display, config):
        stopped = crew.run([number for number in starts if number not in returns])
    if stopped is not None:  # as a job does that is asked to stop
        display.stopped(sweep)
        raise SystemExit(128 + stopped)
    return [returns[number] for number in starts]


@contextmanager
def _shown(display: Display, config: DictConfig) -> Iterator[None]:
    """In it, the sweep is seen, and what is logged appears above its table."""
    logging_as = (config.hydra.hydra_logging, config.hydra.verbose)
    try:
        with display:
            configure_log(*logging_as)
            yield
    finally:
        configure_log(*logging_as)


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
            partial = kept / f"{name}.partial"  # or a kill would leave a config that is another's
            partial.write_text(text, encoding="utf-8")
            partial.replace(kept / name)
    context.callbacks.on_job_start(config=start.config, task_function=task)


def _run(context: HydraContext, task: TaskFunction, start: Start) -> JobReturn:
    """Calls the task, which has only to return what the job has come to."""
    answer = JobReturn(overrides=list(start.overrides), cfg=start.plain)
    answer.hydra_cfg = start.config
    answer.working_dir, answer.task_name = os.getcwd(), JobRuntime.instance().get("name")
    with _naming(start):
        try:
            answer.return_value = task(start.plain)
            answer.status = JobStatus.COMPLETED
        except Exception as error:
            answer.return_value, answer.status = error, JobStatus.FAILED
        context.callbacks.on_job_end(config=start.config, job_return=answer)
    return answer


@contextmanager
def _naming(start: Start) -> Iterator[None]:
    """In it, Hydra's config is that of the job."""
    before = HydraConfig.instance().cfg
    HydraConfig.instance().cfg = start.config  # whole: to take out its own node would copy all
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before


@contextmanager
def _surroundings(start: Start, config: DictConfig) -> Iterator[None]:
    """What Hydra makes for a job at work: its config, its log, its variables."""
    configure_log(start.config.hydra.job_logging, start.config.hydra.verbose)
    try:
        with _naming(start), env_override(start.config.hydra.job.env_set):
            yield
    finally:
        configure_log(config.hydra.hydra_logging, config.hydra.verbose)

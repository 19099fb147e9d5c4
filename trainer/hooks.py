"""What happens before, in and after a job, hung into Hydra.

Hydra makes a run's folder before it calls the job, so `Preflight`, a Hydra callback, composes and
rehearses everything first: a bad command leaves nothing behind. `run` is the job itself.
"""

from __future__ import annotations

import gc
import pickle
import signal
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, flag_override

from trainer import checks
from trainer.build import BadInput, prepare
from trainer.claims import check_started, claim_for_all, existing, held, refuse_another
from trainer.console import Console
from trainer.distributed.processes import Processes
from trainer.record import View
from trainer.resume import SWEEP, CannotResume, differing_keys, lock, overrides_of
from trainer.rng import seed_everything
from trainer.sweeps.composing import Composing
from trainer.sweeps.gathering import gathered
from trainer.sweeps.jobs import SweptJob, close_sweep, ending, keep_failure, swept_before
from trainer.sweeps.listing import jobs_of
from trainer.sweeps.planning import STRATEGIES
from trainer.sweeps.workers import can_fork, own_threads
from trainer.tasks.plots import Plots
from trainer.tasks.train import Job, Train

MOST_BYTES = 2**28  # of the parameters of jobs that are kept from their rehearsal until they start
FIRST = "first.yaml"  # what a search chose for a job


def run(config: DictConfig) -> tuple[int, float | None]:
    """Runs the task of a config in the folder that Hydra made; returns the exit code, and the objective
    for a sweeper."""
    hydra_config = HydraConfig.get()
    folder, choices = Path(hydra_config.runtime.output_dir), hydra_config.runtime.choices
    sweeping = hydra_config.mode == RunMode.MULTIRUN
    if sweeping:
        if not _planned:
            _keep_choice(folder, config)
        if (summary := _ended.pop(folder, None)) is not None:
            pass  # it has run in another process, and was told of
        elif (summary := swept_before(folder)) is None:
            summary = attempt(config, choices, folder, Console(brief=True))
            print(f"\t   {ending(summary, folder)}", flush=True)
        else:
            print("\t   done before, and kept", flush=True)
        overrides = list(hydra_config.overrides.task)
        _finished[hydra_config.job.num] = SweptJob(overrides, folder, summary)
    else:
        job = _prepared.pop(OmegaConf.to_yaml(config), None) or prepare(config, choices)
        with held(folder):
            summary = job.run(folder, Console())
    return _exit_code(summary, sweeping), (summary["objective"] or {}).get("value")


def attempt(
    config: DictConfig,
    choices: Mapping[str, str],
    folder: Path,
    console: Console,
    job: Job | None = None,
    watch: Callable[[Job], View] | None = None,
) -> dict[str, Any]:
    """A job of a sweep, continued if it was cut short; its failure is not that of others.

    Args:
        config: of the job.
        choices: the option chosen in each config group.
        folder: of the job; exists.
        console: where it prints.
        job: what was prepared of that config, and has not been used.
        watch: makes a further view of the record of its training.
    """
    told = [] if job is None else job.notes  # such as that a damaged checkpoint was set aside
    if (folder / "metrics.jsonl").exists():
        config, job = OmegaConf.merge(config, {"resume": str(folder)}), None  # type: ignore[assignment]
    try:
        with lock(folder):
            if job is not None:
                seed_everything(job.trainer.seed)
            begun = job or prepare(config, choices)
            if isinstance(begun, Job):
                begun.notes[:0] = [note for note in told if note not in begun.notes]
                begun.views.extend([] if watch is None else [watch(begun)])
            return begun.run(folder, console)
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


def ready(number: int, config: DictConfig, choices: Mapping[str, str], folder: Path) -> Job | None:
    """A job of a sweep that may be trained with others, where it was saved last; None for one that has
    to run by itself, because it does something else, or cannot even be prepared or continued."""
    try:
        job = _ready.pop(number, None) or prepare(config, choices)
        if not isinstance(job, Job) or type(job.task) is not Train:
            return None
        if (folder / "metrics.jsonl").exists():
            with lock(folder):
                job.resume(folder, changed=False)
    except (Exception, SystemExit):  # `attempt` will meet it again, and tell
        return None
    return job if job.trainer.step < job.horizon.steps else None


def has_ended(folder: Path, summary: dict[str, Any]) -> None:
    """Keeps what became of a job elsewhere until `run` is asked for it."""
    _ended[folder.resolve()] = summary


def _exit_code(summary: Mapping[str, Any], sweeping: bool) -> int:
    if summary["status"] == "interrupted":
        return 128 + signal.Signals[summary["reason"]]
    # A diverged job of a sweep is a finding, which its objective tells; alone it is a failure.
    return int(summary["status"] not in (("completed", "diverged") if sweeping else ("completed",)))


class Preflight(Callback):
    """Refuses a bad command before Hydra makes a folder for it; named in ``hydra.callbacks``.

    Args:
        most_jobs: of a basic sweep.
    """

    def __init__(self, most_jobs: int = 10_000) -> None:
        self.most_jobs = most_jobs
        if not gc.get_freeze_count():
            gc.freeze()  # what is imported by now stays; no collection and no fork need look at it
        gc.enable()

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Composes a single run, and keeps it for `run`."""
        check_started(config)
        job_config = without_hydra(config)
        job = prepare(job_config, config.hydra.runtime.choices)
        processes = job.trainer.processes if isinstance(job, Job) else Processes()
        with processes.meeting.watching():
            claim_for_all(config, processes, resuming=bool(job_config.get("resume")))
        _prepared[OmegaConf.to_yaml(job_config)] = job

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Composes every job of a basic sweep; one that is wrong stops all before the first starts."""
        check_started(config, sweeping=True)
        _check_installed(config)
        for kept in (_finished, _ready, _ended, _planned, _sweep):
            kept.clear()
        keeps = config.hydra.launcher._target_.endswith("VectorizedLauncher")
        if keeps and (chosen := config.hydra.launcher.strategy) not in STRATEGIES:
            known = ", ".join(STRATEGIES)
            raise BadInput(f"hydra.launcher.strategy must be one of {known}, got {chosen!r}")
        if not config.hydra.sweeper._target_.endswith("BasicSweeper"):  # it decides as it goes
            _begin_search(config)
            return
        shared: dict[str, Any] = {}
        loader: Any = GlobalHydra.instance().config_loader()
        loader.load_sweep_config = Composing(loader.load_sweep_config)
        if keeps and can_fork():
            own_threads()
        room = MOST_BYTES
        try:
            most = checks.whole("hydra.callbacks.preflight.most_jobs", self.most_jobs, at_least=1)
            jobs = jobs_of(config, loader, most)
        except ValueError as error:
            raise BadInput(str(error)) from error
        for number, overrides in enumerate(jobs):
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
            if (folder := existing(config)) is not None:
                refuse_another(folder / subdir, plain)
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
    if type(cause).__name__.endswith("RemoteTraceback"):  # text, which other processes send along
        cause = error
    print(f"the sweep ended early: {type(cause).__name__}: {str(cause).strip()}".splitlines()[0])
    _close()
    return True


def _close() -> int:
    folder = _sweep.pop()
    jobs = gathered(folder, [_finished[n] for n in sorted(_finished)], _planned)
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


def _check_installed(config: DictConfig) -> None:
    """Refuses a launcher whose package is not there, before anything is made for its jobs."""
    *package, name = config.hydra.launcher._target_.split(".")[:2]
    if find_spec(".".join((*package, name))) is None:
        chosen = config.hydra.runtime.choices["hydra/launcher"]
        remedy = f"pip install {name.replace('_', '-')}"
        raise BadInput(f"hydra/launcher={chosen} needs a package that is not installed: {remedy}")


def without_hydra(config: DictConfig) -> DictConfig:
    """A copy of the config without Hydra's own node."""
    content: dict[str, Any] = config.__dict__["_content"]  # to copy that too would take most of the time
    hydra_node = content.pop("hydra")
    try:
        plain: DictConfig = pickle.loads(pickle.dumps(config))  # a fifth of what copy.deepcopy takes
        return plain
    finally:
        content["hydra"] = hydra_node


# These are handed from one of Hydra's hooks to another, which share nothing but this module.
_prepared: dict[str, Job | Plots] = {}
_finished: dict[int, SweptJob] = {}  # by number; not always in that order
_ready: dict[int, Job] = {}
_ended: dict[Path, dict[str, Any]] = {}
_planned: dict[str, list[str]] = {}
_sweep: list[Path] = []  # the folder of the one under way

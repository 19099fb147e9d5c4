"""From a Hydra config to plain objects, and from what went wrong to one line for people.

Beside ``train.py``, `trainer.hooks` and the launcher this is the only file that knows Hydra.
"""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import hydra.utils
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf

from trainer import checks, targets
from trainer.checkpoint import DamagedCheckpoint
from trainer.optimizers import check_settings, parameter_groups
from trainer.record import check_tag
from trainer.rehearsal import rehearse
from trainer.resume import differing_keys, status_of
from trainer.rng import seed_everything
from trainer.schedulers import Horizon
from trainer.shortcuts import leave_out_compiler
from trainer.tasks.evaluate import Evaluate
from trainer.tasks.export import Export
from trainer.tasks.plots import Plots
from trainer.tasks.replay import Replay
from trainer.tasks.train import Job, Train

GROUPS = (
    *("data", "model", "init", "loss", "clip", "guard"),
    *("optimizer", "scheduler", "diagnostics", "fault", "trainer", "task"),
)
NEED_A_RUN = (Evaluate, Export, Plots, Replay)

# A user's own package lies where the command is typed; ours, if of the same name, comes first.
sys.path.append(os.getcwd())


# Keys that say how the learning rate and the other settings of the optimizer go on.
SETTLING = (
    *("optimizer.", "scheduler.", "decay ", "data.batch_size ", "data.samples "),
    *("trainer.max_epochs ", "trainer.max_steps ", "trainer.accumulate "),
)


class BadInput(SystemExit):
    """One line on what is wrong with a command, its config or its data.

    A SystemExit, because Hydra turns any ordinary exception of a callback into a warning.
    """


def prepare(
    config: DictConfig, choices: Mapping[str, str], shared: dict[str, Any] | None = None
) -> Job | Plots:
    """Composes and rehearses all that the config names, without leaving a trace on the disk; `Plots`
    needs nothing but the run folder.

    Args:
        config: the job's config, without Hydra's own node.
        choices: the option chosen in each config group.
        shared: data of earlier jobs, which this one takes if it is to have the same, or adds its own.

    Raises:
        BadInput: one line naming the value, the rule and the remedy.
    """
    try:
        named = {group: choices.get(group, "?") for group in GROUPS}
        task = _Parts(config, named)("task")
        if isinstance(task, NEED_A_RUN) and not config.get("resume"):
            raise ValueError(f"resume must name a run folder; task={named['task']} resume=outputs/…")
        if isinstance(task, Plots):
            task.check(Path(config.resume))
            return task
        job = _compose(task, _ablated(config, named, choices.get("ablation", "?")), named, shared)
        seed_everything(config.seed)
        if config.get("resume"):
            _resume(job, Path(config.resume), config)
        return job
    except (ValueError, DamagedCheckpoint) as error:
        raise BadInput(" ".join(str(error).split())) from error


def _resume(job: Job, folder: Path, config: DictConfig) -> None:
    """Puts the job where the run in the folder was saved last, and notes what is to be said of it.

    Raises:
        ValueError: if the configuration differs, the state is not that of these parts, or the run holds
            nothing for the task to do.
        DamagedCheckpoint: if no checkpoint is whole.
    """
    task = job.task
    changed = _check_same(folder, config, ["data"] if isinstance(task, Evaluate) else [])
    if isinstance(task, Replay):  # begins with the weights that the run began with
        task.check(folder)
        return
    with job.trainer.processes.meeting.in_turn():  # one sets a damaged checkpoint aside for all
        job.resume(folder, changed)
    if isinstance(task, Train):
        _check_unfinished(job, config.resume)
    elif isinstance(task, Evaluate):
        task.check(job)


def _check_unfinished(job: Job, folder: str) -> None:
    trainer = job.trainer
    through = trainer.step >= job.horizon.steps
    if through and status_of(Path(folder)) == "completed":  # else it has to say so
        raise ValueError(
            f"resume={folder} is complete, with {trainer.step} steps; to go on, raise "
            "trainer.max_epochs with resume_allow=[trainer.max_epochs]"
        )


def _check_same(folder: Path, config: DictConfig, may_differ: list[str]) -> bool:
    """Refuses a run that was configured otherwise, by naming what differs; returns whether
    something differs that settles the learning rate."""
    plain: dict[str, Any] = OmegaConf.to_container(config)  # type: ignore[assignment]
    differing = differing_keys(folder, plain, [*config.resume_allow, *may_differ])
    if differing:
        names = ", ".join(item.split(" ")[0] for item in differing)
        raise ValueError(
            f"resume={folder} was configured otherwise: {', '.join(differing)}; to continue all the "
            f"same, resume_allow=[{names}]"
        )
    return any(item.startswith(SETTLING) for item in differing_keys(folder, plain, []))


def _ablated(config: DictConfig, choices: dict[str, str], name: str) -> DictConfig:
    """The config with what its ``ablation`` node holds put in place of what was chosen: a part where it
    names a ``_target_``, else those values that the part has. ``choices`` are marked.

    After all choices and values, because it takes something out of whatever they are: an option of
    Hydra's would give way to them, or trip over the values set for the part that is gone.

    Raises:
        ValueError: if that changes nothing.
    """
    taken_out = config.get("ablation")
    if not taken_out:
        return config
    ablated = copy.deepcopy(config)
    for group, node in dict(taken_out).items():
        here = ablated.get(group)
        if not (group in choices and isinstance(node, DictConfig) and isinstance(here, DictConfig)):
            raise ValueError(f"ablation must hold groups and what to put there, got {group!r}: {node!r}")
        whole = "_target_" in node
        fresh = {key: node[key] for key in node if whole or key in here}
        if all(here.get(key) == value for key, value in fresh.items()):
            continue
        choices[group] += "-ablated"
        if whole:
            ablated[group] = node
        else:
            here.update(fresh)
    if ablated == config:
        raise ValueError(
            f"ablation={name} takes nothing out of this run: it would be the same as without; leave it "
            "out"
        )
    return ablated


def _compose(
    task: Any, config: DictConfig, choices: dict[str, str], shared: dict[str, Any] | None
) -> Job:
    part = _Parts(config, choices)
    seed = checks.whole("seed", config.get("seed"), below=2**32, remedy="0 is as good as any")
    clip, loss, guard = (part(name) for name in ("clip", "loss", "guard"))
    checkpoints, refusals, diagnostics = map(part, ("checkpoint", "refusals", "diagnostics"))
    shared = {} if shared is None or choices["fault"] != "none" else shared  # a fault may change data
    origin = f"{seed} {OmegaConf.to_container(config.data, resolve=True)}"
    data = shared[origin] = shared[origin] if origin in shared else part("data", optional={"seed": seed})
    check_tag("objective", config.get("objective"), data)
    seed_everything(seed)
    shapes = {"input_shape": data.input_shape, "output_shape": data.output_shape}
    model = part("model", optional=shapes)
    part("init", model)
    with part.naming("optimizer"):
        check_settings(config.optimizer)
    weight_decay = config.optimizer.get("weight_decay", 0)
    parameters = parameter_groups((model, loss), weight_decay, config.get("decay", "matrices"))
    leave_out_compiler()
    optimizer = part("optimizer", parameters, optional={"model": model})
    with part.naming("trainer"):
        limits = config.trainer
        accumulate = checks.whole("accumulate", limits.accumulate, at_least=1)
        horizon = Horizon.of(data.batches_per_epoch, accumulate, limits.max_epochs, limits.max_steps)
    schedule = part("scheduler", optimizer, optional={"horizon": horizon})
    with part.naming("scheduler"):
        for tag in getattr(schedule, "monitors", ()):
            check_tag("monitor", tag, data)
    fault = part("fault", optional={"seed": seed})
    with part.naming("fault"):
        data = fault.data(data, horizon)
        schedule = fault.schedule(schedule, optimizer, horizon)
    trainer = part(
        "trainer",
        *(model, loss, optimizer),
        clip=clip,
        scheduler=schedule,
        guard=guard,
        checkpoints=checkpoints,
        refusals=refusals,
        diagnostics=diagnostics,
        objective=config.get("objective"),
        seed=seed,
    )
    rehearse(trainer, data, {name: f"{name}={choice}" for name, choice in choices.items()})
    settings: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    parts = {group: settings[group] for group in choices}
    notes = trainer.processes.notes(model)
    if config.trainer.get("compile") and diagnostics.activations:
        notes.append("activations are not watched where trainer.compile=true")
    return Job(task, trainer, data, choices, _numbers(settings), parts, notes)


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
            return _factory(target, node)(*args, **more)

    @contextmanager
    def naming(self, group: str) -> Iterator[None]:
        """Puts the group in front of what a constructor complains about."""
        try:
            yield
        except InstantiationException as error:
            raise ValueError(f"{group}: {error.__cause__ or error}") from error
        except (ValueError, TypeError) as error:
            name = str(error).split(" ")[0].split("[")[0]
            chosen = f"{group}={self.choices.get(group, '?')}"
            if name in ("input_shape", "output_shape", "inputs"):  # which are the data's
                chosen += f" on data={self.choices.get('data', '?')}"
            lead = f"{group}." if name in (self.config.get(group) or {}) else f"{chosen}: "
            raise ValueError(f"{lead}{error}") from error


def _factory(target: Callable[..., Any], node: DictConfig) -> Callable[..., Any]:
    """The target with the node's values bound to it. Hydra makes it, which takes milliseconds; where it
    has made one of the same target before, and there is nothing but values, they are bound here."""
    values: dict[str, Any] = OmegaConf.to_container(node, resolve=True)  # type: ignore[assignment]
    name, _ = values.pop("_target_"), values.pop("_partial_", None)
    flat = not any(str(key).startswith("_") or _holds_dict(value) for key, value in values.items())
    if flat and name in _made:
        return partial(target, **values)
    factory: Callable[..., Any] = hydra.utils.instantiate(node, _partial_=True, _convert_="all")
    _made.add(name)
    return factory


def _holds_dict(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(map(_holds_dict, value)))


_made: set[str] = set()


def _numbers(settings: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a config that runs are compared by, by their dotted keys."""
    flat: dict[str, float] = {}

    def walk(prefix: str, node: Any) -> None:
        for key, value in node.items():
            if isinstance(value, dict):
                walk(f"{prefix}{key}.", value)
            elif isinstance(value, int | float) and not key.startswith("_"):
                flat[f"{prefix}{key}"] = value

    compared = ("seed", "data", "model", "init", "loss", "clip", "optimizer", "scheduler")
    walk("", {key: node for key, node in settings.items() if key in compared})
    return flat

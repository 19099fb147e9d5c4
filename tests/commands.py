"""Printed ``python train.py …`` commands as what they compose, without running anything."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from conftest import ROOT
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from trainer import build
from trainer.tasks.train import Job

START = "python train.py"


@dataclass(frozen=True, slots=True)
class Composed:
    """One job of a command: its config without Hydra's node, and the option of each group."""

    config: DictConfig
    choices: dict[str, str]

    def prepare(self) -> Job:
        """Builds and rehearses the parts of the job, without leaving a trace on the disk; of data that
        is drawn, as little as will do."""
        if self.config.data.get("samples", 0) > 4000:
            self.config.data.samples = 4000
        return build.prepare(self.config, self.choices)


def composed(command: str, extra: Sequence[str] = (), most: int = 2) -> list[Composed]:
    """The jobs of a command: one, or of its sweep so many, the first, the last and some between.

    Args:
        command: as printed, beginning with ``python train.py``.
        extra: further overrides.
        most: composing takes 0.2 s a job, and a sweep may have a hundred.
    """
    assert command.startswith(START + " "), f"{command!r} does not begin with {START}"
    arguments = get_args_parser().parse_args(shlex.split(command.removeprefix(START)))
    overrides = [*arguments.overrides, *extra]
    if arguments.config_dir:
        overrides.append(f"hydra.searchpath=[file://{arguments.config_dir}]")
    with initialize_config_dir(version_base="1.3", config_dir=str(ROOT / "conf")):
        parse = OverridesParser.create().parse_overrides
        plain = [o.input_line for o in parse(overrides) if not o.is_sweep_override()]
        whole = compose("config", plain, return_hydra_config=True)
        if not (arguments.multirun or whole.hydra.mode == RunMode.MULTIRUN):
            assert len(plain) == len(overrides), f"{command}: swept values need -m"
            return [_without_hydra(whole)]
        swept = [f"{key}={values}" for key, values in (whole.hydra.sweeper.params or {}).items()]
        swept = [override for override in swept if "interval(" not in override]  # no list of values
        (jobs,) = BasicSweeper.split_arguments(parse([*swept, *overrides]), max_batch_size=None)
        chosen = {round(i * (len(jobs) - 1) / (most - 1)): None for i in range(most)}
        return [_without_hydra(compose("config", [*jobs[i]], return_hydra_config=True)) for i in chosen]


def _without_hydra(whole: DictConfig) -> Composed:
    own = OmegaConf.masked_copy(whole, [str(key) for key in whole if key != "hydra"])
    return Composed(own, {str(k): str(v) for k, v in whole.hydra.runtime.choices.items()})

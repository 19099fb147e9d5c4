"""The jobs of a basic sweep, counted before one of them is composed."""

from __future__ import annotations

from itertools import islice
from math import prod
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig


def jobs_of(config: DictConfig, loader: Any, most: int) -> list[list[str]]:
    """The overrides of each job.

    Args:
        config: of the sweep.
        loader: Hydra's, which knows the options that a glob finds.
        most: jobs that there may be.

    Raises:
        ValueError: if there are none, more, or two that are the same.
    """
    arguments = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    arguments += config.hydra.overrides.task
    overrides = OverridesParser.create(config_loader=loader).parse_overrides(arguments)
    swept = [override.sweep_string_iterator() for override in overrides if override.is_sweep_override()]
    number = prod(len(list(islice(values, most + 1))) for values in swept)
    if not number:
        raise ValueError("the sweep is empty: one of its keys has no value")
    if number > most:
        raise ValueError(
            f"the sweep must have at most {most} jobs, got {number} or more; split it, or raise "
            "hydra.callbacks.preflight.most_jobs"
        )
    (jobs,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    if len({tuple(map(_setting, job)) for job in jobs}) < len(jobs):
        raise ValueError("the sweep holds the same job twice: list every value once")
    return [list(job) for job in jobs]


def _setting(override: str) -> tuple[str, float | str]:
    """Key and value, 1e-3 the same as 0.001."""
    key, _, text = override.partition("=")
    try:
        return key, float(text)
    except ValueError:
        return key, text

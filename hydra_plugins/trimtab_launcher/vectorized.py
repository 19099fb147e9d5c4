"""Hydra's entry to `trainer.sweeps.crew`. Imported at every start, so nothing heavy is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class VectorizedLauncher(Launcher):
    """Trains the jobs of a sweep that differ only in numbers as one, and the others each by itself.

    Args:
        strategy: "auto", "stacked", "processes" or "alone", see `trainer.sweeps.crew.Crew`.
    """

    def __init__(self, strategy: str = "auto") -> None:
        self.strategy = strategy

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Takes note of what Hydra hands to a launcher."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Runs the jobs; what each returns, in their order."""
        from hydra_plugins.trimtab_launcher._jobs import launch

        context: Any = (self.hydra_context, self.task_function, self.config)
        return launch(*context, job_overrides, initial_job_idx, self.strategy)

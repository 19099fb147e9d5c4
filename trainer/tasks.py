"""What a command does with the parts it composed; chosen by the ``task`` group."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.console import Console
from trainer.data.tensors import Data
from trainer.loop import Trainer
from trainer.schedulers import Horizon
from trainer.tensorboard import TensorBoard


class Train:
    """Trains, shows the run while it goes on, and leaves a run folder behind."""

    def run(
        self,
        trainer: Trainer,
        data: Data,
        folder: Path,
        choices: Mapping[str, str],
        numbers: Mapping[str, float],
    ) -> dict[str, Any]:
        """Returns the summary, which is also in ``folder/summary.json``.

        Args:
            trainer: ready to fit.
            data: what to fit.
            folder: the run folder; it exists.
            choices: the option chosen in each config group.
            numbers: every number of the config, by its dotted key.
        """
        console, board = Console(), TensorBoard(folder)
        horizon = Horizon.of(data.batches_per_epoch, trainer.accumulate, *trainer.limits)
        console.start(_header(trainer, choices), horizon.steps, trainer.step, horizon.per_epoch)
        try:
            summary = trainer.fit(data, folder, [console, board])
        finally:
            console.close()
        final = {tag: values["last"] for tag, values in summary["metrics"].items()}
        board.hparams({**choices, **numbers}, {tag: v for tag, v in final.items() if tag.startswith("val/")})
        board.close()
        if summary["steps"] > 1:  # plots take matplotlib, whose import costs as much as torch's
            from trainer.plots import draw_curves

            draw_curves(folder)
        console.finish(summary, folder)
        return summary


def _header(trainer: Trainer, choices: Mapping[str, str]) -> list[str]:
    count = sum(parameter.numel() for parameter in trainer.parameters)
    return [
        "  ".join(f"{key}={value}" for key, value in choices.items()),
        f"{count:,} parameters in {trainer.precision.dtype} on {trainer.device}",
    ]

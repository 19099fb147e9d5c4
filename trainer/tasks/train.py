"""A command with its parts, composed; and training them, which ``task=train`` does."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from trainer.checkpoint import load_newest
from trainer.console import Console
from trainer.data.tensors import Data
from trainer.diagnostics.graph import autograd_graph
from trainer.evaluation import image_samples
from trainer.fitting import reconfigured
from trainer.loop import Trainer
from trainer.record import View
from trainer.resume import SWEEP, CannotResume, overrides_of
from trainer.schedulers import Horizon
from trainer.sweeps.comparison import keys_of
from trainer.tensorboard import TensorBoard


@dataclass(frozen=True, slots=True)
class Job:
    """A command, composed: nothing is left that could be refused.

    Attributes:
        task: what to do with the rest; has ``run(job, folder, console)``.
        trainer: ready to fit.
        data: what to fit.
        choices: the option chosen in each config group.
        notes: what is to be said before it starts, such as where it resumes.
        views: where the record of training is shown beside console and TensorBoard.
        generators: the `rng_state` that it goes on with; empty where it begins.
        numbers: the numbers of the config that runs are compared by, by their dotted keys.
        parts: what the config sets of each group's part, ``_target_`` included.
    """

    task: Any
    trainer: Trainer
    data: Data
    choices: dict[str, str]
    numbers: dict[str, float]
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    views: list[View] = field(default_factory=list)
    generators: dict[str, Any] = field(default_factory=dict)

    @property
    def horizon(self) -> Horizon:
        """How long its run is."""
        trainer = self.trainer
        return Horizon.of(self.data.batches_per_epoch, trainer.accumulate, *trainer.limits)

    def resume(self, folder: Path, changed: bool) -> None:
        """Puts it where the newest whole checkpoint of a run was taken, but for the settings where they
        have ``changed``, and notes what is to be said of it.

        Raises:
            ValueError: if the state is not one of these parts.
            DamagedCheckpoint: if no checkpoint is whole.
        """
        (state, notes), trainer = load_newest(folder), self.trainer
        self.notes.extend(notes)
        if state is None:
            return
        try:
            place = (state["counters"]["step"], self.horizon.per_epoch)
            settled = reconfigured(trainer.schedule, trainer.optimizer, *place)
            with settled if changed else nullcontext():
                trainer.load_state_dict(state)
            self.generators.update(state["rng"])
        except Exception as error:  # whatever it trips over that is no state of theirs
            raise ValueError(f"resume={folder} does not fit these parts: {error}") from error

    def run(self, folder: Path, console: Console) -> dict[str, Any]:
        """Does it, in that folder; returns the summary."""
        summary: dict[str, Any] = self.task.run(self, folder, console)
        return summary


class Train:
    """Trains, shows the run while it goes on, and leaves a run folder behind."""

    def run(self, job: Job, folder: Path, console: Console) -> dict[str, Any]:
        """Returns the summary, which is also in ``folder/summary.json``; the folder exists."""
        trainer, data = job.trainer, job.data
        if not trainer.processes.leads:
            return trainer.fit(data)
        console.start(header(job), job.horizon.steps, trainer.step, job.horizon.per_epoch)
        for note in job.notes:
            console.note(note)
        board = TensorBoard(folder, trainer.step)
        board.layout()
        try:
            summary = trainer.fit(data, folder, [console, board, *job.views])
            show_result(job, folder, board, console, summary)
        finally:
            console.close()
            board.close()
        try:
            from trainer.pictures.curves import draw_curves  # matplotlib takes as long as torch

            draw_curves(folder)
        except OSError as error:
            console.note(f"curves.png is not drawn: {error}")
        console.finish(summary, folder)
        return summary


def show_result(
    job: Job, folder: Path, board: TensorBoard, console: Console, summary: dict[str, Any]
) -> None:
    """What a run shows when it has ended: samples, its graph, and its row among others."""
    if summary["status"] == "completed":
        _show_samples(job, folder, board)
        _show_graph(job, board, console)
    board.hparams(job.numbers | _parts(job), _final_validation(summary), _swept(folder))


def _show_graph(job: Job, board: TensorBoard, console: Console) -> None:
    """The model's graph in TensorBoard; at the end, so that no training depends on it."""
    batches = job.data.validation() if job.data.validates else job.data.batches(0)
    inputs, _ = next(batches)
    try:  # two samples at least, or BatchNorm would complain; of a single one twice the same
        board.graph(autograd_graph(job.trainer.model, inputs[[0, -1]]))
    except Exception as error:  # whatever a user's model does, the training is done
        console.note(f"TensorBoard shows no graph: {error}")


def _show_samples(job: Job, folder: Path, board: TensorBoard) -> None:
    """Inputs, predictions and targets, where they are images: samples.npz and TensorBoard."""
    samples = image_samples(job.trainer.forward, job.data, job.trainer.precision.autocast)
    if samples is not None:
        names = ("input", "prediction", "target")
        arrays = {name: tensor.numpy() for name, tensor in zip(names, samples, strict=True)}
        np.savez(folder / "samples.npz", **arrays)  # type: ignore[arg-type]
        board.images(job.trainer.step, *samples)


def header(job: Job) -> list[str]:
    """Three lines on what a job is about: what was chosen, and how large it is."""
    count = sum(parameter.numel() for parameter in job.trainer.parameters)
    what = {key: f"{key}={value}" for key, value in job.choices.items()}
    lines = [what.pop("data"), what.pop("model"), what.pop("loss"), what.pop("clip")]
    size = f"{count:,} parameters, {job.data.batches_per_epoch} batches an epoch"
    return ["  ".join(lines), "  ".join(what.values()), f"{size}, on {job.trainer.device}"]


def _swept(folder: Path) -> list[str]:
    """The keys whose values a job has not in common with its whole sweep; none of a single run."""
    sweep = folder.parent / SWEEP
    if not sweep.exists():
        return []
    try:
        alike = _typed(sweep, sweep.stat().st_mtime_ns)
        return [key for key, _ in keys_of([item for item in overrides_of(folder) if item not in alike])]
    except CannotResume:  # something was typed that a command would not be given again
        return []


@lru_cache(maxsize=1)
def _typed(sweep: Path, written_at: int) -> list[str]:
    """What was typed for a sweep, whose every job asks: its config takes 10 ms to read."""
    return overrides_of(sweep.parent)


def _parts(job: Job) -> dict[str, str]:
    return {k: v for k, v in job.choices.items() if k not in ("task", "trainer", "guard")}


def _final_validation(summary: dict[str, Any]) -> dict[str, float]:
    metrics = summary["metrics"].items()
    return {tag: values["last"] for tag, values in metrics if tag.startswith("val/")}

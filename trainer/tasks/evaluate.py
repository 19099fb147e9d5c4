"""The metrics of a checkpoint, on the run's own data or on other data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from trainer import checks
from trainer.checkpoint import load
from trainer.console import Console
from trainer.data.tensors import Batch
from trainer.evaluation import evaluate
from trainer.record import finite
from trainer.tasks.export import objective
from trainer.tasks.train import Job
from trainer.wording import count, number, typed


class Evaluate:
    """Loss and metrics of a run's checkpoint; trains nothing and changes nothing that the run left.

    Args:
        split: "val", or "train" for the training samples as the first epoch serves them, with whatever
            noise or augmentation they come with; the model is in evaluation mode for both.
        checkpoint: "newest", or "best" by the run's objective.

    Raises:
        ValueError: for another word.
    """

    def __init__(self, split: str = "val", checkpoint: str = "newest") -> None:
        self.split = checks.choice("split", split, ("val", "train"))
        self.checkpoint = checks.choice("checkpoint", checkpoint, ("newest", "best"))

    def check(self, job: Job) -> None:
        """Refuses a job that there is nothing to evaluate of, or on.

        Raises:
            ValueError: if the run has no checkpoint, or the data no such split.
        """
        if job.trainer.step == 0:
            example = "task=evaluate resume=outputs/<date>/<time>"
            raise ValueError(f"resume must name a run folder that has a checkpoint; {example}")
        if self.split == "val" and not job.data.validates:
            raise ValueError("task.split must be train where the data has no validation samples")

    def run(self, job: Job, folder: Path, console: Console) -> dict[str, Any]:
        """Prints the metrics, adds them to ``folder/evaluate.jsonl`` and returns a short summary."""
        trainer = job.trainer
        recorded = trainer.record.last
        if self.checkpoint == "best" and trainer.checkpoints.best is not None:
            path = folder / "checkpoints" / f"step-{trainer.checkpoints.best[1]:08d}.ckpt"
            trainer.load_state_dict(load(path))
        values, samples = self._measure(job)
        named = {f"{self.split}/{name}": value for name, value in values.items()}
        data = {"data": job.choices["data"], **job.parts["data"]}
        line = {"step": trainer.step, "split": self.split, "samples": samples, "metrics": named}
        with open(folder / "evaluate.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(finite(line | {"data": data})) + "\n")
        for note in _scaled_otherwise(job, folder):
            console.note(note)
        console.show(
            f"step {trainer.step}, {count(samples, f'{self.split} sample')} of data={data['data']}",
            _table(named, recorded),
            f"added to {typed(folder / 'evaluate.jsonl')}",
        )
        return {"status": "completed", "reason": "", "seconds": 0.0, "objective": objective(job)}

    def _measure(self, job: Job) -> tuple[dict[str, float], int]:
        trainer, samples = job.trainer, 0

        def counted() -> Iterator[Batch]:
            nonlocal samples
            for batch in job.data.validation() if self.split == "val" else job.data.batches(0):
                samples += len(batch[0])
                yield batch

        autocast = trainer.precision.autocast
        values = evaluate(trainer.forward, trainer.loss, counted(), job.data.metrics, autocast)
        return values, samples


def _table(values: Mapping[str, float], recorded: Mapping[str, float]) -> Table:
    table = Table(box=None, padding=(0, 3, 0, 0), pad_edge=False, header_style="dim")
    table.add_column("")
    table.add_column("here", justify="right")
    table.add_column("last in the run", justify="right")
    for tag, value in values.items():
        table.add_row(tag, number(value), number(recorded.get(tag)))
    return table


def _scaled_otherwise(job: Job, folder: Path) -> list[str]:
    """A model has learned from samples that were scaled in one way; other data that scales itself, by
    its own mean, say, is not what it knows."""
    path = folder / "summary.json"
    if not path.exists():
        return []
    data = json.loads(path.read_text(encoding="utf-8")).get("data") or {}
    now = json.loads(json.dumps(finite(dict(getattr(job.data, "provenance", {})))))
    if data.get("normalisation") == now.get("normalisation"):
        return []
    return [
        "this data is scaled otherwise than the run's (normalisation in summary.json): compare with care"
    ]

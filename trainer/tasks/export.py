"""The weights of a run as one file that other programs read: ``model.safetensors``."""

from __future__ import annotations

import hashlib
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from trainer.console import Console
from trainer.record import recorded_tags
from trainer.tasks.train import Job
from trainer.wording import typed


class Export:
    """Writes the model's weights as the run's newest valid checkpoint has them; trains nothing."""

    def __init__(self) -> None:
        if find_spec("safetensors") is None:
            raise ValueError('needs the package safetensors: pip install "trimtab[export]"')

    def run(self, job: Job, folder: Path, console: Console) -> dict[str, Any]:
        """Writes ``folder/model.safetensors`` and returns a short summary.

        Raises:
            ValueError: if no run was resumed, so that there is nothing but fresh weights.
        """
        from safetensors.torch import save

        trainer = job.trainer
        if trainer.step == 0:
            example = "task=export resume=outputs/<date>/<time>"
            raise ValueError(f"resume must name a run folder that has a checkpoint; {example}")
        metadata = {"format": "pt", "framework": f"trimtab {_version()}", "step": str(trainer.step)}
        with open(folder / "checkpoints" / f"step-{trainer.step:08d}.ckpt", "rb") as file:
            metadata["checkpoint_sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
        path, partial = folder / "model.safetensors", folder / "model.safetensors.partial"
        try:
            partial.write_bytes(save(weights(trainer.model), metadata))
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
        console.note(f"step {trainer.step} exported to {typed(path)}")
        return {"status": "completed", "reason": "", "seconds": 0.0, "objective": objective(job)}


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Every tensor of the model by its name, on the CPU. Tied ones are written once for each name, so
    that the file loads into any model with these names."""
    state = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    return {name: value.cpu().contiguous().clone() for name, value in state.items()}


def objective(job: Job) -> dict[str, Any]:
    """What the run is judged by and the last value it recorded, for the summary of such a task."""
    tag = job.trainer.record.objective or recorded_tags(job.data)[0]
    higher = tag in {f"val/{name}" for name, m in job.data.metrics.items() if m.higher_is_better}
    return {"tag": tag, "value": job.trainer.record.last.get(tag), "higher_is_better": higher}


def _version() -> str:
    try:
        return version("trimtab")
    except PackageNotFoundError:  # run from a clone
        return "(not installed)"

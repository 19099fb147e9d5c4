"""What the guard refused, taken again: ``task=replay resume=outputs/<date>/<time>``."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch

from trainer.checkpoint import DamagedCheckpoint, load
from trainer.console import Console
from trainer.data.tensors import Batch, each, place
from trainer.diagnostics.replay import Verdict, replay
from trainer.record import finite
from trainer.refusals import refused_steps
from trainer.snapshot import copied
from trainer.tasks.train import Job

OTHERS = 2  # later training steps to try the same weights with, beside one on validation data


class Replay:
    """Takes every refused step that the run has kept once more, as it was, and says what it was that the
    guard refused: the data, the state, or something that is in neither. Trains nothing."""

    def check(self, folder: Path) -> None:
        """Whether there is something to replay.

        Raises:
            ValueError: otherwise.
        """
        if not refused_steps(folder / "refused"):
            raise ValueError(
                f"resume={folder} must have a folder refused/ with a step in it: the guard has refused "
                "none, or none was kept"
            )

    def run(self, job: Job, folder: Path, console: Console) -> dict[str, Any]:
        """Prints a verdict for each step, leaves them in ``folder/replay.json`` too, and returns a short
        summary."""
        began, found = time.perf_counter(), []
        initial = {name: copied(module.state_dict()) for name, module in job.trainer.modules.items()}
        for path in refused_steps(folder / "refused"):
            try:
                refusal = load(path)
                verdict = _replayed(job, refusal, initial["model"])
                where = f"epoch {refusal['epoch'] + 1}, batch {refusal['batch'] + 1}"
            except (DamagedCheckpoint, OSError) as error:
                console.note(f"{error}; passed over")
                continue
            except (KeyError, RuntimeError, ValueError, TypeError) as error:
                console.note(f"{path} does not fit these parts: {error}; passed over")
                continue
            console.note(f"step {refusal['step']} ({where}): {verdict.kind}")
            for line in _then(refusal) + verdict.lines:
                console.say(f"    {line}")
            found.append({"step": refusal["step"], **asdict(verdict)})
        text = json.dumps(finite({"steps": found}), indent=2) + "\n"
        (folder / "replay.json").write_text(text, encoding="utf-8")
        status, reason = ("completed", "") if found else ("failed", "no refused step could be read")
        seconds = time.perf_counter() - began
        return {"status": status, "reason": reason, "seconds": seconds, "objective": None}


def _replayed(job: Job, refusal: dict[str, Any], initial: dict[str, Any]) -> Verdict:
    """The verdict on a step that was kept.

    Raises:
        Exception: of many kinds, where the file holds something else than these parts would have left.
    """
    trainer = job.trainer
    for name, module in trainer.modules.items():
        module.load_state_dict(refusal["modules"][name])
    trainer.guard.load_state_dict(refusal["guard"])
    device, dtype = trainer.device, trainer.precision.dtype
    batches = [place(tuple(batch), device, dtype) for batch in refusal["batches"]]
    others = _others(job, batches, refusal["epoch"], refusal["batch"])
    generators = refusal["generators"]
    torch.set_rng_state(generators[0])
    if device.type == "cuda" and len(generators) > 1:
        torch.cuda.set_rng_state(generators[1], device)
    if trainer.scaler is not None and refusal.get("scale"):
        trainer.scaler.scale.fill_(refusal["scale"])
    return replay(
        trainer.model,
        trainer.loss,
        batches,
        others,
        initial,
        trainer.guard.judge,
        trainer.clip.norm_type,
        trainer.precision,
        trainer.scaler,
    )


def _others(job: Job, batches: Sequence[Batch], epoch: int, batch: int) -> list[list[Batch]]:
    """The next training steps, and as many validation samples as the step had."""
    data = job.data.to(job.trainer.device, job.trainer.precision.dtype)
    size = len(batches)
    following = chain(data.batches(epoch, batch + size), data.batches(epoch + 1))
    others = [list(islice(following, size)) for _ in range(OTHERS)]
    samples = len(batches[0][0])
    for inputs, targets in islice(data.validation(), 1):
        others.append([each(lambda tensor: tensor[:samples], (inputs, targets))])
    return others


def _then(refusal: dict[str, Any]) -> list[str]:
    lines = [f"refused with loss {refusal['loss']:.4g}, gradient norm {refusal['norm']:.4g}"]
    if refusal["later"]:
        lines.append(f"with the weights of {refusal['later']} steps later, the device being ahead")
    return lines

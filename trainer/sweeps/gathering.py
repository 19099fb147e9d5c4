"""The jobs of a sweep, wherever they ran: in this process, or in others that left only a folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from trainer.resume import RUN, lock
from trainer.sweeps.jobs import SweptJob, swept_before


def gathered(folder: Path, ran: Sequence[SweptJob], planned: Mapping[str, list[str]]) -> list[SweptJob]:
    """Every job of the sweep in ``folder``, in its order.

    Args:
        folder: of the sweep.
        ran: jobs that ended in this process.
        planned: the overrides of each job by its folder's name; empty where a search decides as it goes,
            and its jobs are the folders that are there.
    """
    here = {job.folder.resolve(): job for job in ran}
    names = {name: (folder / name).resolve() for name in planned or _found(folder)}
    return [
        here[path] if path in here else SweptJob(planned.get(name) or _typed(path), path, _told(path))
        for name, path in names.items()
    ]


def _found(folder: Path) -> list[str]:
    names = [str(path.parent.parent.relative_to(folder)) for path in folder.glob(f"*/{RUN}")]
    return sorted(names, key=lambda name: (len(name), name))  # 2 before 10


def _typed(folder: Path) -> list[str]:
    typed: list[str] = yaml.safe_load((folder / RUN).read_text(encoding="utf-8")) or []
    return typed


def _told(folder: Path) -> dict[str, Any]:
    """The summary a job left; of one that left none, what can be seen from here."""
    unsaid: dict[str, Any] = {"status": "failed", "objective": None}
    try:
        lock(folder).close()
    except FileNotFoundError:
        return unsaid | {"reason": "not started"}
    except BlockingIOError:
        return unsaid | {"status": "running"}
    try:
        left: dict[str, Any] = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return unsaid | {"reason": "its process was killed, perhaps for want of memory"}
    return swept_before(folder) or left

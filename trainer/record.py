"""The run's record: ``metrics.jsonl``, a line per logged step, and ``summary.json`` at the end."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TextIO

from trainer.data.tensors import Data


class View(Protocol):
    """Somewhere the record is shown. A view that fails must not touch the training."""

    def scalars(self, step: int, epoch: int, values: Mapping[str, float]) -> None: ...
    def note(self, line: str) -> None: ...
    def histograms(self, step: int, values: Mapping[str, Mapping[str, Any]]) -> None: ...


class RecordNotWritten(OSError):
    """The record could not be written; the message says which file, why, and what to do."""


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Raises RecordNotWritten for what a disk refuses."""
    try:
        yield
    except OSError as error:
        raise RecordNotWritten(
            f"{path} could not be written: {error.strerror}. Make room and continue with "
            f"resume={path.parent}"
        ) from error


class Record:
    """First, best and last value of every tag, and a line per logged step if there is a folder.

    Nothing that depends on the clock goes into ``metrics.jsonl``: two runs of one configuration write
    the same bytes.

    Args:
        objective: the tag the run is judged by; None is the data's first metric, or val/loss.
    """

    def __init__(self, objective: str | None = None) -> None:
        self.objective = objective
        self.tags: dict[str, dict[str, float]] = {}
        self.higher_is_better: set[str] = set()
        self.provenance: dict[str, Any] = {}
        self.folder: Path | None = None
        self.views: list[View] = []
        self.file: TextIO | None = None

    def open(
        self, data: Data, folder: Path | None = None, views: Sequence[View] = (), step: int = 0
    ) -> None:
        """Before the first line.

        Args:
            data: its metrics say which tags are better when larger, its provenance where it is from.
            folder: where ``metrics.jsonl`` and ``summary.json`` go; None keeps all in memory.
            views: where every line is shown too.
            step: where the run stands; lines beyond it are dropped, they will be written again.
        """
        self.objective = self.objective or recorded_tags(data)[0]
        self.higher_is_better = {f"val/{n}" for n, m in data.metrics.items() if m.higher_is_better}
        self.provenance = dict(getattr(data, "provenance", {}))
        self.folder, self.views = folder, list(views)
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            _drop_lines_beyond(step, folder / "metrics.jsonl")
            self.file = open(folder / "metrics.jsonl", "a", encoding="utf-8")

    def write(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """One line: ``{"step": …, "epoch": …, <tag>: <value>, …}``; non-finite values are null.

        Raises:
            RecordNotWritten: if the disk is full, say.
        """
        for tag, value in values.items():
            self._remember(tag, value)
        if self.file is not None and self.folder is not None:
            known = {tag: value if math.isfinite(value) else None for tag, value in values.items()}
            line = {"step": step, "epoch": epoch, **known}
            with _told(self.folder / "metrics.jsonl"):
                self.file.write(json.dumps(line) + "\n")
                self.file.flush()
        for view in self.views:
            view.scalars(step, epoch, values)

    def note(self, line: str) -> None:
        """One line for whoever is watching; it is not part of the record."""
        for view in self.views:
            view.note(line)

    def histograms(self, step: int, values: Mapping[str, Mapping[str, Any]]) -> None:
        """For the views that show them, by tag: the fields of TensorBoard's ``HistogramProto``."""
        for view in self.views:
            view.histograms(step, values)

    def close(self, summary: Mapping[str, Any]) -> None:
        """Writes ``summary.json`` and closes, after the last line has reached the disk.

        Raises:
            RecordNotWritten: if the disk is full, say; the summary is written if there is room for it.
        """
        if self.file is None or self.folder is None:
            return
        file, self.file = self.file, None
        try:
            with _told(self.folder / "metrics.jsonl"), file:
                file.flush()
                os.fsync(file.fileno())
        finally:
            with _told(self.folder / "summary.json"):
                write_summary(self.folder, summary)

    @property
    def last(self) -> dict[str, float]:
        """The last value of every tag."""
        return {tag: values["last"] for tag, values in self.tags.items()}

    @property
    def score(self) -> float | None:
        """The objective's last value, turned so that more is better; None before the first."""
        value = self.last.get(str(self.objective))
        return value if value is None or self.objective in self.higher_is_better else -value

    def objective_value(self, diverged: bool) -> dict[str, Any]:
        """The objective and the value the run ended with: the worst there is if it diverged, so that
        no sweep picks it; None if it was never recorded."""
        tag = str(self.objective)
        higher = tag in self.higher_is_better
        worst = -math.inf if higher else math.inf
        value = worst if diverged else self.last.get(tag)
        return {"tag": tag, "value": value, "higher_is_better": higher}

    def summary(self, diverged: bool = False) -> dict[str, Any]:
        """The objective, first, best and last of every tag, and what data they are of."""
        objective = self.objective_value(diverged)
        return {"objective": objective, "metrics": self.tags, "data": self.provenance}

    def state_dict(self) -> dict[str, Any]:
        """First, best and last of every tag."""
        return {"tags": {tag: dict(values) for tag, values in self.tags.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores first, best and last of every tag."""
        self.tags = {tag: dict(values) for tag, values in state["tags"].items()}

    def _remember(self, tag: str, value: float) -> None:
        seen = self.tags.setdefault(tag, {"first": value, "best": value, "last": value})
        seen["last"] = value
        better = value > seen["best"] if tag in self.higher_is_better else value < seen["best"]
        if better or math.isnan(seen["best"]):
            seen["best"] = value


def _drop_lines_beyond(step: int, path: Path) -> None:
    """A kill may have left lines of steps that the checkpoint does not know, and the half of one."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    kept = [line for line in lines if line.endswith(b"\n") and json.loads(line)["step"] <= step]
    if kept != lines:
        partial = path.with_name(path.name + ".partial")
        partial.write_bytes(b"".join(kept))
        partial.replace(path)


def recorded_tags(data: Data) -> list[str]:
    """The tags that every run on this data records and may be judged by, the natural one first."""
    validation = [f"val/{name}" for name in (*data.metrics, "loss")] if data.validates else []
    return [*validation, "train/loss", "grad/norm"]


def check_tag(name: str, tag: Any, data: Data) -> None:
    """Refuses a tag that no run on this data would record; None passes.

    Raises:
        ValueError: naming the argument and what is recorded.
    """
    known = recorded_tags(data)
    if tag is not None and tag not in known:
        raise ValueError(f"{name} must be one of {', '.join(known)}, got {tag!r}")


def write_summary(folder: Path, summary: Mapping[str, Any]) -> None:
    """Writes ``summary.json`` so that a reader finds the old one or the new one, never half of it."""
    partial = folder / "summary.json.partial"
    try:
        with open(partial, "w", encoding="utf-8") as file:
            file.write(json.dumps(finite(summary), indent=2) + "\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(folder / "summary.json")
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def finite(value: Any) -> Any:
    """The value with every NaN and inf as None: JSON has no other word for them."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value

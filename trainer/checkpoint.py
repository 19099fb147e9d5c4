"""Checkpoint files: written whole or not at all, checked before they are read, never executed.

A file is a header (magic, format version, length and SHA-256 of what follows) and a `torch.save`
archive, which is only ever opened with ``weights_only=True``, and only after its table of contents and
the names in its pickle were looked at: torch alone would let a file ask for memory or import a codec.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import pickle
import re
import stat
import struct
import time
import warnings
from pathlib import Path
from typing import IO, Any, cast

import torch

from trainer import checks
from trainer.hashed import write_hashed
from trainer.plain import check_plain, look_through
from trainer.snapshot import own

MAGIC = b"TRIMTAB\n"
VERSION = 2
HEADER = struct.Struct("<8sIQ32s")
NAME = re.compile(r"step-(\d{8,})\.ckpt")


class DamagedCheckpoint(Exception):
    """A checkpoint that is not what was written; the message names the file and what is wrong."""


class NewerCheckpoint(DamagedCheckpoint):
    """A checkpoint that a later version of Trimtab has written: nothing is wrong with it."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes the state to the path so that a reader finds the old file or the new one, whole.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and the file is
    renamed; then the folder is flushed, without which a power cut could forget the rename.

    Raises:
        TypeError: if the state holds what `load` would refuse; the part is named.
        OSError: if the disk is full or the folder cannot be written; the old file is untouched.
    """
    for name, part in state.items():
        try:
            check_plain({name: part}, math.inf)
        except pickle.UnpicklingError as error:
            raise TypeError(f"the state of {name} holds {error}, which no checkpoint can") from error
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "w+b", buffering=0) as file:
            file.write(bytes(HEADER.size))
            length, digest = write_hashed(
                file, lambda writer: torch.save(state, cast(IO[bytes], writer))
            )
            file.seek(0)
            file.write(HEADER.pack(MAGIC, VERSION, length, digest))
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load(path: Path | str) -> dict[str, Any]:
    """The state in a checkpoint, on the CPU: a dict with ``model``, ``optimizer``, ….

    Raises:
        DamagedCheckpoint: if the file is foreign, of another version, cut short, altered or unsafe.
        OSError: if it cannot be read.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):  # a pipe or a device would never end
        raise DamagedCheckpoint(f"{path}: not a file")
    with open(path, "rb") as file:
        header = file.read(HEADER.size)
        if len(header) < HEADER.size or not header.startswith(MAGIC):
            raise DamagedCheckpoint(f"{path}: not a checkpoint of Trimtab")
        _, version, length, digest = HEADER.unpack(header)
        if VERSION < version < 256:  # they are counted one by one; more than that is damage
            raise NewerCheckpoint(
                f"{path}: format {version}, this version reads {VERSION}; update Trimtab, or resume=… "
                "a folder without it"
            )
        if not 1 <= version <= VERSION:
            raise DamagedCheckpoint(f"{path}: format {version}, this version reads {VERSION}")
        there = os.fstat(file.fileno()).st_size - HEADER.size
        if there != length:
            raise DamagedCheckpoint(f"{path}: {there} bytes of {length} are there")
        payload = file.read(length)
    if hashlib.sha256(payload).digest() != digest:
        raise DamagedCheckpoint(f"{path}: the content does not match its SHA-256")
    try:
        look_through(payload)
        with warnings.catch_warnings(action="ignore"):
            state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
        check_plain(state, len(payload))
    except pickle.UnpicklingError as error:
        raise DamagedCheckpoint(f"{path}: holds more than data, nothing of it was run") from error
    except MemoryError:
        raise  # the file asks for no more than its size: this machine is too small, not the file bad
    except Exception as error:  # zip, pickle and torch have a dozen kinds for what is malformed
        if "can't allocate memory" in str(error):  # torch's way to say it
            raise MemoryError(f"{path}: there is no memory for it") from error
        raise DamagedCheckpoint(f"{path}: its SHA-256 is right, but it holds no state") from error
    return dict(state)


class CheckpointNotWritten(OSError):
    """A checkpoint could not be written; the message says what is kept and what to do."""


class Checkpoints:
    """When to save and what to keep.

    Args:
        every_steps: save after every so many steps; None for never.
        every_seconds: save once so much time has passed since the last; None for never.
        keep: how many of the newest files stay; the one with the best objective stays beside them.

    Raises:
        ValueError: for a number out of range.
    """

    def __init__(
        self,
        every_steps: int | None = None,
        every_seconds: float | None = 300.0,
        keep: int = 2,
    ) -> None:
        self.every_steps = (
            None if every_steps is None else checks.whole("every_steps", every_steps, at_least=1)
        )
        self.every_seconds = (
            None if every_seconds is None else checks.number("every_seconds", every_seconds, above=0)
        )
        self.keep = checks.whole("keep", keep, at_least=1)
        self.saved_at = time.monotonic()
        self.best: tuple[float, int] | None = None

    def due(self, step: int, by_clock: bool = True) -> bool:
        """Whether to save now, after this step; without ``by_clock`` as though no time passed."""
        if self.every_steps is not None and step % self.every_steps == 0:
            return True
        return by_clock and time.monotonic() >= self.due_at

    @property
    def due_at(self) -> float:
        """When the clock will ask for a save, by `time.monotonic`."""
        return math.inf if self.every_seconds is None else self.saved_at + self.every_seconds

    def save(self, folder: Path, step: int, state: dict[str, Any], score: float | None = None) -> Path:
        """Writes ``checkpoints/step-00001234.ckpt`` into the run folder, and drops what is not to stay.

        Args:
            folder: the run folder.
            step: the step that the state was taken after.
            state: what `load` is to return.
            score: how good the state is, more being better; None if not known.

        Raises:
            CheckpointNotWritten: if the disk is full, say; everything saved before is untouched.
        """
        folder = folder / "checkpoints"
        path = folder / f"step-{step:08d}.ckpt"
        if score is not None and (self.best is None or score > self.best[0]):
            self.best = (score, step)
            state["checkpoints"] = self.state_dict()
        try:
            folder.mkdir(exist_ok=True)
            save(path, own(state))
        except OSError as error:
            raise CheckpointNotWritten(
                f"{path} could not be written: {error.strerror}; the checkpoints before it are intact. "
                f"Make room and continue with resume={folder.parent}"
            ) from error
        self.saved_at = time.monotonic()
        self._drop(folder, path)
        return path

    def _drop(self, folder: Path, path: Path) -> None:
        best = None if self.best is None else folder / f"step-{self.best[1]:08d}.ckpt"
        others = [other for other in newest_first(folder) if other not in (path, best)]
        for old in others[max(0, self.keep - 1) :]:
            old.unlink(missing_ok=True)
        for cut_short in folder.glob("*.partial"):  # by a kill in the middle of a save
            cut_short.unlink(missing_ok=True)

    def state_dict(self) -> dict[str, Any]:
        """Which checkpoint is the best so far."""
        return {"best": None if self.best is None else list(self.best)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores which checkpoint is the best so far."""
        self.best = None if state["best"] is None else (state["best"][0], state["best"][1])


def load_newest(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """The state in the newest checkpoint of a run folder that is whole, and what is to be said of it.

    A damaged file is set aside as ``….ckpt.damaged``, and the one before it is used.

    Returns:
        The state and notes for people; None and a note if the run has not saved one yet.

    Raises:
        NewerCheckpoint: if one is of a later format; it stays where it is.
        DamagedCheckpoint: if there are checkpoints and none of them is whole.
    """
    damaged: list[str] = []
    for path in newest_first(folder / "checkpoints"):
        try:
            state = load(path)
        except NewerCheckpoint:
            raise
        except DamagedCheckpoint as error:
            damaged.append(str(error))
            path.rename(path.with_name(path.name + ".damaged"))
            continue
        notes = [f"{line}; set aside" for line in damaged]
        return state, [*notes, f"resumed at step {state['counters']['step']} from {path}"]
    aside = sorted(path.name for path in (folder / "checkpoints").glob("*.damaged"))
    if aside:
        why = "; ".join(damaged) or f"{', '.join(aside)} were set aside before"
        raise DamagedCheckpoint(f"{folder} has no checkpoint that is whole: {why}")
    return None, [f"{folder} has no checkpoint yet: starting again at step 0"]


def newest_first(folder: Path) -> list[Path]:
    """The checkpoints of a folder, the one of the highest step first."""
    found = [path for path in folder.glob("step-*.ckpt") if NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.stem.removeprefix("step-")), reverse=True)

"""Checkpoint files: written whole or not at all, checked before they are read, never executed.

A file is a header (magic, format version, length and SHA-256 of what follows) and a `torch.save`
archive, which is only ever opened with ``weights_only=True``.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import struct
import time
from pathlib import Path
from typing import Any

import torch

from trainer import checks

MAGIC = b"TRIMTAB\n"
VERSION = 1
HEADER = struct.Struct("<8sIQ32s")
NAME = re.compile(r"step-(\d{8,})\.ckpt")


class DamagedCheckpoint(Exception):
    """A checkpoint that is not what was written; the message names the file and what is wrong."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes the state to the path so that a reader finds the old file or the new one, whole.

    The bytes go to a temporary file in the same folder, are flushed to the disk, and the file is
    renamed; then the folder is flushed, without which a power cut could forget the rename.

    Raises:
        OSError: if the disk is full or the folder cannot be written; the old file is untouched.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getbuffer()
    header = HEADER.pack(MAGIC, VERSION, len(payload), hashlib.sha256(payload).digest())
    partial = path.with_name(path.name + ".partial")
    try:
        with open(partial, "wb") as file:
            file.write(header)
            file.write(payload)
            file.flush()
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
        DamagedCheckpoint: if the file is foreign, of another version, cut short or altered.
        OSError: if it cannot be read.
    """
    data = Path(path).read_bytes()
    if len(data) < HEADER.size or data[: len(MAGIC)] != MAGIC:
        raise DamagedCheckpoint(f"{path}: not a checkpoint of Trimtab")
    _, version, length, digest = HEADER.unpack_from(data)
    if version != VERSION:
        raise DamagedCheckpoint(f"{path}: format {version}, this version reads {VERSION}")
    payload = memoryview(data)[HEADER.size :]
    if len(payload) != length:
        raise DamagedCheckpoint(f"{path}: {len(payload)} bytes of {length} are there")
    if hashlib.sha256(payload).digest() != digest:
        raise DamagedCheckpoint(f"{path}: the content does not match its SHA-256")
    state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    return dict(state)


class Checkpoints:
    """When to save and what to keep.

    Args:
        every_steps: save after every so many steps; None for never.
        every_seconds: save once so much time has passed since the last; None for never.
        keep: how many of the newest files stay.

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

    def due(self, step: int) -> bool:
        """Whether to save now, after this step."""
        if self.every_steps is not None and step % self.every_steps == 0:
            return True
        elapsed = time.monotonic() - self.saved_at
        return self.every_seconds is not None and elapsed >= self.every_seconds

    def save(self, folder: Path, step: int, state: dict[str, Any]) -> Path:
        """Writes ``checkpoints/step-00001234.ckpt`` into the run folder and drops what is older than
        the newest ``keep``."""
        folder = folder / "checkpoints"
        folder.mkdir(exist_ok=True)
        path = folder / f"step-{step:08d}.ckpt"
        save(path, state)
        self.saved_at = time.monotonic()
        for old in newest_first(folder)[self.keep :]:
            old.unlink()
        return path


def newest_first(folder: Path) -> list[Path]:
    """The checkpoints of a folder, the one of the highest step first."""
    found = [path for path in folder.glob("step-*.ckpt") if NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.stem.removeprefix("step-")), reverse=True)

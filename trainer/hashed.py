"""A file that is hashed while it is written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, BinaryIO

PIECE = 2**20  # bytes read at a time


def write_hashed(file: BinaryIO, write: Callable[[HashedWriter], None]) -> tuple[int, bytes]:
    """Lets ``write`` fill the rest of a file, and hashes it meanwhile.

    A thread reads behind the writer, from the page cache: on two cores the hash then costs next to
    nothing, and no second copy of the bytes is held. (What torch hands to a writer is only valid during
    the call, so it cannot be hashed later without a copy.)

    Args:
        file: unbuffered, open for reading and writing, standing where ``write`` is to begin.
        write: gets an object with ``write`` and ``flush``, such as `torch.save` asks for.

    Returns:
        How many bytes were written, and their SHA-256.

    Raises:
        OSError: if the disk is full, say.
    """
    writer = HashedWriter(file)
    writer.start()
    try:
        write(writer)
    finally:
        writer.ends.put(None)
        writer.join()
    if writer.failure is not None:
        raise writer.failure
    return writer.end - writer.begin, writer.digest.digest()


class HashedWriter(Thread):
    """What `write_hashed` hands out: writes in its caller's thread, and hashes in its own."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(daemon=True)  # an impatient second Ctrl-C does not wait for it
        self.file = file
        self.begin = self.end = file.tell()
        self.ends: SimpleQueue[int | None] = SimpleQueue()
        self.digest = hashlib.sha256()
        self.failure: BaseException | None = None

    def write(self, data: Any) -> int:
        """Takes all of it. What goes wrong is kept for `write_hashed`: torch's writer, which is C++,
        would turn it into an error of its own."""
        view = memoryview(data).cast("B")
        try:
            at = 0
            while at < len(view) and self.failure is None:
                at += self.file.write(view[at:])
            self.end += len(view)
            self.ends.put(self.end)
        except BaseException as error:
            self.failure = error
        return len(view)

    def flush(self) -> None:
        """There is no buffer."""

    def run(self) -> None:
        """Hashes what is there, until None says that no more will come."""
        piece, at = memoryview(bytearray(PIECE)), self.begin
        try:
            while (end := self.ends.get()) is not None:
                while at < end and self.failure is None:
                    count = os.preadv(self.file.fileno(), [piece[: end - at]], at)
                    if not count:
                        raise OSError("the file was cut short by someone else")
                    self.digest.update(piece[:count])
                    at += count
        except BaseException as error:
            self.failure = error

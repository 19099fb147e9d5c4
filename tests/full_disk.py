"""Disks that fill up, for tests: real short writes and real errors, at a byte of one's choice."""

from __future__ import annotations

import errno
import io
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """The kernel lets no file grow beyond ``size`` bytes: a write that would is cut short, the next
    one raises OSError, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class Disk(io.FileIO):
    """An unbuffered file on a disk with ``left`` bytes. A write takes what fits and says how much
    that was; where nothing fits it raises ENOSPC."""

    left = 2**62

    def write(self, data: Any) -> int:
        """Writes up to ``left`` bytes."""
        if not self.left:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = super().write(bytes(data)[: self.left])
        self.left -= written
        return written

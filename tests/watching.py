"""What the interpreter was asked to do, and what memory it took, while something hostile was read."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOM = 128 * 2**20  # bytes that a load of some kilobytes may take beyond what the process has
events: list[str] | None = None  # what the interpreter was asked to do while a file was loaded
sys.addaudithook(lambda event, _: events.append(event) if events is not None else None)
ASKED = {"open", "builtins.id", "object.__getattr__", "sys._getframe", "pickle.find_class"}  # harmless


@contextmanager
def watched() -> Iterator[list[str]]:
    """Notes every audited event: opening a file, importing, compiling, running a program, …."""
    global events
    seen: list[str] = []
    events = seen
    try:
        yield seen
    finally:
        events = None


@contextmanager
def bounded_memory() -> Iterator[None]:
    """Within it the process cannot get more than `ROOM` of memory beyond what it has."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    has = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (has + ROOM, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)

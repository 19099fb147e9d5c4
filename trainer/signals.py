"""Signals that ask a run to stop: noted at once, acted upon between two steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any, Self

ASKED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class StopSignals:
    """A context in which SIGINT, SIGTERM and SIGUSR1 set ``received`` instead of killing the process.

    A SIGINT after any of them raises KeyboardInterrupt on the spot, for the impatient. Outside the main
    thread, where Python allows no handlers, it does nothing.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self.previous: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self.previous = {number: signal.signal(number, self._note) for number in ASKED}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received is not None:
            raise KeyboardInterrupt
        self.received = number

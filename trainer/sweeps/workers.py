"""Work in processes of its own: what one of them does, or has done to it, is its own loss.

A process is a fork of this one: it starts within milliseconds, with everything that is imported and
prepared here. That is safe on the terms on which torch's `DataLoader` forks its workers: no device but
the CPU is in use, and torch has not started threads of its own before (see `own_threads`).
"""

from __future__ import annotations

import ctypes
import io
import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import Any, Self

import torch

from trainer.signals import ASKED

PATIENCE = 0.1  # s between two looks at what else may have happened: a signal, or a death
FAREWELL = 5.0  # s for a process to end that has said everything
PR_SET_PDEATHSIG = 1
Tell = Callable[[Any], None]
Work = Callable[[Tell], None]


@dataclass(frozen=True, slots=True)
class Said:
    """A line that was printed while working.

    Attributes:
        number: of the job that it is about; None where several are worked on.
        line: without its end.
    """

    number: int | None
    line: str


@dataclass(frozen=True, slots=True)
class Gone:
    """The process has ended.

    Attributes:
        code: its exit code; -n where signal n killed it.
    """

    code: int

    @property
    def cause(self) -> str:
        """What has become of it, for people."""
        if self.code < 0:
            return f"its process was killed by signal {-self.code}"
        return f"its process ended with exit code {self.code}"


class Lines(io.TextIOBase):
    """A stream whose lines are told as `Said`.

    Args:
        tell: to whom.
        number: of the job that they are about.
    """

    def __init__(self, tell: Tell, number: int | None) -> None:
        self.pass_on, self.number, self.rest = tell, number, ""

    def write(self, text: str) -> int:
        """Tells every line that is complete."""
        *lines, self.rest = (self.rest + text).split("\n")
        for line in lines:
            self.pass_on(Said(self.number, line))
        return len(text)


@dataclass(slots=True)
class Worker:
    """A process at work, the end of the channel from it, and what it was started for."""

    process: ForkProcess
    channel: Connection
    key: Any


class Workers:
    """The processes that were started here; none of them outlives the context, or this process."""

    def __init__(self) -> None:
        self.going: list[Worker] = []
        self.leaving: list[Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for worker in (*self.going, *self.leaving):
            worker.process.join(0 if worker in self.going else FAREWELL)
            worker.process.kill()
            worker.process.join()

    def start(self, key: Any, number: int | None, work: Work, threads: int = 1) -> None:
        """Forks a process that does the work and ends.

        Args:
            key: names the process in `heard`.
            number: of the job that its printed lines are about.
            work: called there with a function that sends an object here.
            threads: that torch may use there.
        """
        receiver, sender = multiprocessing.Pipe(duplex=False)
        arguments = (work, sender, number, threads, os.getpid())
        process = multiprocessing.get_context("fork").Process(target=_work, args=arguments)
        # Or one that comes before the fork has its own handlers would be noted by a copy of these.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ASKED)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)  # of threads that are not torch's
                process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        sender.close()  # so that the channel ends with the process
        self.going.append(Worker(process, receiver, key))

    def heard(self) -> list[tuple[Any, Any]]:
        """What was sent, with the key of its process, and `Gone` after the last of one that has ended;
        waits a moment for the first."""
        if not self.going:
            return []
        wait([w.channel for w in self.going] + [w.process.sentinel for w in self.going], PATIENCE)
        found: list[tuple[Any, Any]] = []
        for worker in [worker for worker in self.leaving if worker.process.exitcode is not None]:
            self.leaving.remove(worker)
            worker.channel.close()
        for worker in list(self.going):
            code = worker.process.exitcode  # before reading, so that nothing comes after it
            with suppress(EOFError, OSError):  # OSError: killed in the middle of a message
                while worker.channel.poll():
                    found.append((worker.key, worker.channel.recv()))
            if code is not None:
                self.going.remove(worker)
                worker.channel.close()
                found.append((worker.key, Gone(code)))
        return found

    def until_gone(self) -> Iterator[tuple[Any, Any]]:
        """What is `heard` until all have ended."""
        while self.going:
            yield from self.heard()

    def release(self, key: Any) -> None:
        """Makes room for another: this one has said everything and has only to end."""
        for worker in [worker for worker in self.going if worker.key is key]:
            self.going.remove(worker)
            self.leaving.append(worker)

    def signal(self, number: int) -> None:
        """Sends all of them a signal."""
        for worker in self.going:
            with suppress(ProcessLookupError):
                os.kill(worker.process.pid or 0, number)


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0))


@cache
def can_fork() -> bool:
    """Whether forks of this process can do what it can: a device does not follow into them."""
    return sys.platform == "linux" and not torch.accelerator.is_available()


@cache
def own_threads() -> int:
    """How many threads torch would use; from the first call on it uses one here, because a fork of a
    process in which OpenMP has started threads hangs as soon as it wants threads itself."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    return threads


def _work(work: Work, sender: Connection, number: int | None, threads: int, parent: int) -> None:
    """What a process does."""
    os.setpgid(0, 0)  # Ctrl-C reaches the parent alone, which passes it on, once
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was quicker
        os._exit(1)
    for asked in ASKED:
        signal.signal(asked, signal.SIG_DFL if asked != signal.SIGINT else signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKED)
    torch.set_num_threads(threads)
    sending = threading.Lock()

    def tell(message: Any) -> None:
        with sending:
            sender.send(message)

    streams = [Lines(tell, number), Lines(tell, number)]
    if sys.stdout.isatty() and sys.stderr.isatty():  # or it would tear what is shown there
        sys.stderr = streams[1]
    sys.stdout = streams[0]
    with suppress(KeyboardInterrupt):
        work(tell)
    for lines in streams:
        if lines.rest:
            lines.write("\n")

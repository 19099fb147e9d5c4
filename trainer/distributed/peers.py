"""Which of several processes is gone, found out by those that are left."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from datetime import timedelta
from pathlib import Path

from torch._C._distributed_c10d import PrefixStore, Store

START = 300.0  # seconds between the first process that has composed its parts and the last
PAUSE = 0.01  # seconds between two looks for those that are still to come
SECONDS = 3.0  # that the death of a process may take to show
STATES = {"Z": "is gone", "X": "is gone", "T": "has been stopped"}


class ProcessLost(ConnectionError):
    """Another process is gone, or gives no answer."""


def introduce(table: Store, rank: int, size: int) -> PrefixStore:
    """Waits until all have come, and returns a part of the table that no one has written to before.

    torchrun keeps the table over a restart, and what was said then must not be heard. Its own count of
    restarts does not tell them apart: of several machines only the one that has lost a process counts.
    So the first process counts, and answers each of the others by the name that it asks under.

    Args:
        table: that all see.
        rank: of this process.
        size: how many there are.
    """
    name = f"{os.getpid()} {socket.gethostname()}"
    if rank == 0:
        start = table.add("trimtab/starts", 1)
    else:
        asking = f"{name} {time.time_ns()}"
        table.set(f"trimtab/asking/{rank}", asking)
        start = int(table.get(f"trimtab/start/{asking}"))
    own = PrefixStore(f"trimtab/{start}", table)
    own.set(f"process/{rank}", name)
    all_of_them = [f"process/{other}" for other in range(size)]
    deadline = time.monotonic() + START
    while rank == 0 and not own.check(all_of_them) and time.monotonic() < deadline:
        for other in range(1, size):
            if table.check([f"trimtab/asking/{other}"]):  # even if in an earlier start: nobody listens
                asking = os.fsdecode(table.get(f"trimtab/asking/{other}"))
                table.set(f"trimtab/start/{asking}", str(start))
        time.sleep(PAUSE)
    own.wait(all_of_them, timedelta(seconds=START if rank else PAUSE))
    return own


def lost(table: Store | None, rank: int, size: int, timeout: float) -> str:
    """One line on why an exchange with the others failed; this process is expected to end with it.

    From now on it heeds no SIGTERM: torchrun sends one to all that are left, before they could say why.

    Args:
        table: where all have introduced themselves; None where some have not.
        rank: of this process.
        size: how many there are.
        timeout: seconds that it has waited for them at most.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    others = [other for other in range(size) if other != rank]
    deadline = time.monotonic() + SECONDS  # its connections end before it does
    while table is not None and time.monotonic() < deadline:
        if found := dict.fromkeys(line for other in others if (line := _trouble(table, other))):
            return f"{', '.join(found)}: the others end too"
        time.sleep(0.1)
    return (
        f"another of the {size} processes is gone, or has given no answer for {timeout:g} s "
        "(trainer.processes.timeout): the others end too"
    )


def _trouble(table: Store, rank: int) -> str | None:
    """What is wrong with a process of this machine; None where nothing is, or that cannot be seen."""
    try:
        key = f"process/{rank}"
        pid, host = os.fsdecode(table.get(key)).split(" ") if table.check([key]) else ("", "")
    except RuntimeError:
        return "whoever kept the table of processes, torchrun or process 0, is gone"
    if host != socket.gethostname() or not Path("/proc/self").exists():
        return None
    try:
        state = Path("/proc", pid, "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except OSError:
        state = "X"
    return f"process {rank} (pid {pid}) {STATES[state]}" if state in STATES else None

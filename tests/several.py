"""Several processes that train together, forked from the tests': torch need not be imported again."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
from torch.distributed import TCPStore

import train
from trainer.distributed.torchrun import Place

PATIENCE = 60.0  # seconds


def table() -> TCPStore:
    """What torchrun keeps for its processes, on a port that nobody else has.

    In a process of its own, for as long as the tests go on: it has a thread, and of the processes that
    are forked beside that one in a thousand hangs where it opens the table.
    """
    context = multiprocessing.get_context("fork")
    end, theirs = context.Pipe(duplex=False)
    context.Process(target=_keep, args=(theirs,), daemon=True).start()
    return TCPStore("127.0.0.1", end.recv(), is_master=False, timeout=timedelta(seconds=PATIENCE))


def _keep(answer: Connection) -> None:
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    answer.send(store.port)
    threading.Event().wait()


def together(
    function: Callable[[Place], Any],
    size: int = 2,
    store: TCPStore | None = None,
    answers: int | None = None,
    patience: float = PATIENCE,
) -> list[Any]:
    """What the function returns in each of so many processes; None for one that was killed.

    Args:
        function: gets its place; what it returns is pickled.
        size: how many processes.
        store: of an earlier start, which torchrun keeps; None for a new one.
        answers: of so many of the processes, the first; the others are not waited for.
        patience: seconds; then all are killed, and the test fails.
    """
    store = store or table()
    places = [Place(rank, size, rank) for rank in range(size)]
    context = multiprocessing.get_context("fork")
    running, ends = [], []
    for place in places:
        end, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_run, args=(function, place, store.port, theirs))
        process.start()
        theirs.close()
        running.append(process)
        ends.append(end)
    try:
        return [_received(end) for end in _in_order(ends[:answers], patience)]
    finally:
        for process in running:
            process.kill()
            process.join()


def commands(
    *arguments: str, before: Callable[[Place], None] = lambda place: None, **settings: Any
) -> list[tuple[int, str, str]]:
    """Exit code, output and errors of ``train.py`` with the arguments in each of two processes, where
    ``before`` is called first."""

    def command(place: Place) -> tuple[int, str, str]:
        out, errors = io.StringIO(), io.StringIO()
        before(place)
        sys.argv = ["train.py", *arguments]
        with redirect_stdout(out), redirect_stderr(errors):
            code = train.main()
        return code, out.getvalue(), errors.getvalue()

    return together(command, **settings)


def dies_at(step: int, rank: int = 1, number: int = signal.SIGKILL) -> Callable[[Place], None]:
    """From then on the process of that rank gets the signal when it begins that step, counted from 1."""

    def prepare(place: Place) -> None:
        from trainer.loop import Trainer

        original = Trainer._step

        def stepping(trainer: Trainer, *arguments: Any) -> None:
            if trainer.step + 1 == step:
                os.kill(os.getpid(), number)
            original(trainer, *arguments)

        if place.rank == rank:
            Trainer._step = stepping  # type: ignore[method-assign]  # of a process that ends here

    return prepare


def _run(function: Callable[[Place], Any], place: Place, port: int, answer: Connection) -> None:
    os.environ |= {
        "RANK": str(place.rank),
        "WORLD_SIZE": str(place.size),
        "LOCAL_RANK": str(place.local),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    torch.set_num_threads(1)
    try:
        answer.send((True, function(place)))
    except BaseException:
        answer.send((False, traceback.format_exc()))
    answer.close()
    os._exit(0)


def _in_order(ends: Sequence[Connection], patience: float) -> Sequence[Connection]:
    """The ends, once there is something to read from each of them."""
    deadline, waiting = time.monotonic() + patience, list(ends)
    while waiting:
        ready = wait(waiting, timeout=max(0.0, deadline - time.monotonic()))
        assert ready, f"{len(waiting)} of {len(ends)} processes gave no answer in {patience:g} s"
        waiting = [end for end in waiting if end not in ready]
    return ends


def _received(end: Connection) -> Any:
    try:
        fine, answer = end.recv()
    except (EOFError, pickle.UnpicklingError):
        return None
    assert fine, answer
    return answer

"""The command in a process of its own, which may be sent signals."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import train


def forked(
    *arguments: str, folder: Path | None = None, before: Callable[[], None] = lambda: None
) -> BaseProcess:
    """Starts the command where torch need not be imported again: fork takes it along.

    Args:
        arguments: of ``train.py``.
        folder: where it is typed, and its out.txt is what it prints; None: here, and printed here.
        before: is called first, there.
    """

    def run() -> None:
        if folder is not None:
            os.chdir(folder)
            sys.stdout = sys.stderr = open("out.txt", "w", encoding="utf-8")
        before()
        sys.argv = ["train.py", *arguments]
        try:
            code = train.main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        sys.stdout.flush()
        os._exit(code)

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process


def wait_for(happened: Callable[[], Any], run: BaseProcess) -> None:
    """Until it happened, the process has ended, or a minute has passed."""
    deadline = time.monotonic() + 60
    while not happened() and run.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)

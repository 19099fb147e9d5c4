"""What torchrun tells a process through its environment, and what outlives a restart.

Nothing heavy is imported here: ``train.py`` asks before Hydra composes anything.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from trainer.resume import RUN, expand, status_of

if TYPE_CHECKING:
    from torch._C._distributed_c10d import TCPStore

FOLDER = "trimtab/folder"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a process stands among those that train together; alone unless something is said.

    Attributes:
        rank: its number among all, from 0 on.
        size: how many there are.
        local: its number among those of its machine, which is that of its GPU.
    """

    rank: int = 0
    size: int = 1
    local: int = 0

    @classmethod
    def here(cls) -> Self:
        """The place that the environment names: alone, unless torchrun or the like has started it."""
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        told = [int(os.environ.get(name, "0")) for name in names]
        return cls(*told) if {*names[:2], "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys() else cls()


def store(seconds: float) -> TCPStore:
    """The table of keys that all processes see. torchrun keeps it, over restarts too; where nobody does,
    the first process opens one.

    Args:
        seconds: that a missing key is waited for.
    """
    from datetime import timedelta

    from torch._C._distributed_c10d import TCPStore

    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    opens = not _is_kept() and Place.here().rank == 0
    # Several tables in one process would else each ask for the port.
    return TCPStore(*address, is_master=opens, timeout=timedelta(seconds=seconds), multi_tenant=True)


def expanded(arguments: Sequence[str]) -> list[str]:
    """`trainer.resume.expand` of the arguments; where torchrun has started the processes anew
    (``--max-restarts``), of those with ``resume=<folder>``, the run folder of the start before.

    Raises:
        CannotResume: as there.
        SystemExit: if that run has diverged, which it would do again.
    """
    if Place.here().size == 1 or not _is_kept():
        return expand(arguments)
    table = store(30.0)
    folder = Path(os.fsdecode(table.get(FOLDER))) if table.check([FOLDER]) else None
    if folder is None or not (folder / RUN).exists():  # the last start ended before it was a run
        return expand(arguments)
    if status_of(folder) == "diverged":
        raise SystemExit(f"{folder} has diverged and is not started anew")
    return expand([*(a for a in arguments if not a.startswith("resume=")), f"resume={folder}"])


def _is_kept() -> bool:
    """Whether torchrun keeps the table."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"

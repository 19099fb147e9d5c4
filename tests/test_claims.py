"""Folders are claimed by one alone, however many start at once."""

from __future__ import annotations

import os
from pathlib import Path

from trainer.claims import unused
from trainer.resume import lock

STARTS = 64


def test_of_many_that_start_together_each_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    """What is left of 64 commands if nothing is trained: all wait for one gate, and claim."""
    wanted = tmp_path / "outputs" / "2026-01-01" / "12-00-00"
    gate, opened = os.pipe()
    answers, answer = os.pipe()
    started = []
    for _ in range(STARTS):
        if (child := os.fork()) == 0:
            try:
                os.close(opened)
                os.read(gate, 1)  # ends when nobody has the other end any more
                claimed = Path(unused(str(wanted)))
                with lock(claimed):
                    os.write(answer, f"{claimed.name}\n".encode())
            finally:
                os._exit(0)
        started.append(child)
    for end in (gate, opened, answer):
        os.close(end)
    for child in started:
        os.waitpid(child, 0)
    with open(answers, encoding="utf-8") as file:
        claimed = file.read().split()
    names = {"12-00-00", *(f"12-00-00-{number}" for number in range(2, STARTS + 1))}
    assert len(claimed) == STARTS
    assert set(claimed) == names == {path.name for path in wanted.parent.iterdir()}

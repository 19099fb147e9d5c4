"""A sweep as it is seen while it runs: on a terminal one live table, elsewhere a line now and then."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TextIO

from rich.live import Live
from rich.text import Text

from trainer.console import terminal
from trainer.sweeps.jobs import ending
from trainer.sweeps.overview import STYLES, in_a_line, overview
from trainer.sweeps.pulse import Mark
from trainer.sweeps.standing import Standing
from trainer.wording import typed

LIVE_SECONDS = 0.25
PLAIN_SECONDS = 10.0


class Display:
    """Shows the jobs of a sweep; a job that fails or diverges is told of as soon as it has.

    It starts no thread, so that processes can be forked while it is open: whoever runs the jobs calls
    `refresh` now and then. On a terminal whatever is printed meanwhile appears above the table, which is
    gone in the end.

    Args:
        overrides: of all jobs as typed, by number.
        folders: of all jobs.
        stream: where to, by default the standard output.
    """

    def __init__(
        self,
        overrides: Mapping[int, Sequence[str]],
        folders: Mapping[int, Path],
        stream: TextIO | None = None,
    ) -> None:
        self.standing = Standing(overrides, folders)
        self.stream = sys.stdout if stream is None else stream
        self.out, self.animated = terminal(self.stream)
        self.live: Live | None = None
        self.began = self.due = time.monotonic()
        self.above: list[Text] = []
        self.widest = min(60, max(map(len, map(self.standing.differs, overrides)), default=0))

    def __enter__(self) -> Self:
        self.due = time.monotonic() + (0 if self.animated else PLAIN_SECONDS)
        if self.animated:
            mine = self.stream is sys.stdout
            self.live = Live(
                get_renderable=self._table,
                console=self.out,
                auto_refresh=False,
                transient=True,
                redirect_stdout=mine,
                redirect_stderr=mine and sys.stderr.isatty(),
            )
            self.live.start(refresh=True)
        return self

    def __exit__(self, *exception: object) -> None:
        if self.live is not None:
            self._show()
            self.live.stop()
            self.live = None

    def say(self, number: int | None, line: str) -> None:
        """Prints a line, with the job that it is about."""
        if number is None or not line.strip():
            self._print(Text(line))
        else:
            self._print(Text.assemble((self._named(number), "dim"), line.strip()))

    def started(self, numbers: Sequence[int]) -> None:
        """These jobs have been started in one process."""
        self.standing.start(numbers)
        self.refresh()

    def parted(self, numbers: Iterable[int]) -> None:
        """These jobs have not been trained in it; each will be started by itself."""
        self.standing.wait(list(numbers))

    def reached(self, marks: Mapping[int, Mark]) -> None:
        """These jobs have come so far."""
        self.standing.reach(marks)
        self.refresh()

    def ended(self, number: int, summary: dict[str, Any], kept: bool = False) -> None:
        """A job has ended; ``kept`` if it had before. What did not succeed is told on a terminal too."""
        self.standing.end(number, summary, kept)
        status = str(summary["status"])
        if not self.animated or (status not in ("completed", "interrupted") and not kept):
            told = "done before, and kept" if kept else ending(summary, self.standing.folders[number])
            style = STYLES.get(status, "") if self.animated else ""
            self._print(Text.assemble((self._named(number), "dim"), (told, style)))
        self.refresh()

    def stopping(self, number: int) -> None:
        """The sweep has been asked to stop by this signal."""
        self.standing.signal = number
        self.due = 0.0
        self.refresh()

    def stopped(self, folder: Path) -> None:
        """Says how far the sweep in this folder has come, and how it goes on."""
        done = sum(job.summary["status"] != "interrupted" for job in self.standing.ended.values())
        name = signal.Signals(self.standing.signal or signal.SIGINT).name
        told = f"interrupted by {name}: {done} of {len(self.standing.overrides)} jobs are done"
        self._print(Text(f"{told}; python train.py resume={typed(folder)} goes on"))

    def refresh(self) -> None:
        """Shows where the jobs stand, if it is time to."""
        now = time.monotonic()
        if now < self.due:
            return
        if self.live is not None:
            self._show()
            # A slow terminal gets fewer, so that showing never takes more than 1 % of the sweep.
            self.due = now + max(LIVE_SECONDS, 100 * (time.monotonic() - now))
        elif not self.animated:
            self._print(Text(in_a_line(self.standing)))
            self.due = now + max(PLAIN_SECONDS, (now - self.began) / 30)  # of hours not thousands

    def _show(self) -> None:
        if self.above:  # draws the table anew, below
            self.out.print(Text("\n").join(self.above), soft_wrap=True)
            self.above.clear()
        elif self.live is not None:
            self.live.refresh()

    def _table(self) -> Text:
        table = overview(self.standing, *self.out.size, self.out.options.ascii_only)
        table.no_wrap = True
        return table

    def _named(self, number: int) -> str:
        width = len(str(max(self.standing.overrides)))
        differs = self.standing.differs(number)
        return f"#{number:<{width}}  {differs:<{self.widest}}  " if differs else f"#{number}  "

    def _print(self, line: Text) -> None:
        """At once, or with the next table: to draw that for each line would take most of the time."""
        if self.live is not None:
            self.above.append(line)
        else:
            self.out.print(line, soft_wrap=True)

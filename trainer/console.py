"""What a person sees in the terminal: a header, a live bar or plain lines, a closing table."""

from __future__ import annotations

import io
import math
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import rich.console
from rich.console import RenderableType
from rich.live import Live
from rich.text import Text

from trainer.closing import WIDEST, facts, figures
from trainer.wording import MISSING, clock, number, percent, typed

BAR_SECONDS = 0.125
PLAIN_SECONDS = 5.0
RATE_SAMPLES = 240  # 30 s of bar refreshes, 20 min of plain lines


def terminal(stream: TextIO) -> tuple[rich.console.Console, bool]:
    """Rich on a stream, and whether something may move there."""
    if isinstance(stream, io.TextIOWrapper):
        # A dash that an ASCII log cannot spell must not end a training run.
        stream.reconfigure(errors="replace")
    out = rich.console.Console(file=stream, markup=False, emoji=False, highlight=False)
    # FORCE_COLOR makes rich call a pipe a terminal: colour is welcome there, a moving bar not.
    return out, stream.isatty() and out.is_interactive


class Progress:
    """Where a run stands: the last value seen of every tag, the recent rate, the time left."""

    def __init__(self, total_steps: int, done_steps: int, steps_per_epoch: int) -> None:
        self.total, self.step = total_steps, done_steps
        self.epochs = math.ceil(total_steps / max(1, steps_per_epoch))
        self.epoch = min(self.epochs, done_steps // max(1, steps_per_epoch) + 1)
        self.seen: dict[str, float] = {}
        self.marks = deque([(time.monotonic(), done_steps)], maxlen=RATE_SAMPLES)

    def mark(self, now: float) -> None:
        """Remembers when this step was reached, for the rate; called once per refresh."""
        if self.step < self.marks[-1][1]:  # a rewind: steps walked twice would make a negative rate
            self.marks.clear()
        self.marks.append((now, self.step))

    def where(self) -> str:
        """The epoch, as `epoch 3/40`."""
        return f"epoch {self.epoch}/{self.epochs}"

    def pace(self) -> tuple[str, str]:
        """Steps per second over the recent past, and the time left at that pace as h:mm:ss."""
        (then, first), (now, last) = self.marks[0], self.marks[-1]
        rate = (last - first) / (now - then) if last > first and now > then else None
        left = clock((self.total - self.step) / rate) if rate else MISSING
        return f"{number(rate, 3)} steps/s", left

    def fields(self) -> list[tuple[str, str]]:
        """Label and value of everything seen so far, in the order it is shown."""
        shown = [(label, form(self.seen[tag])) for tag, label, form in FIELDS if tag in self.seen]
        validation = [tag for tag in self.seen if tag.startswith("val/")]
        measured = [tag for tag in validation if not tag.startswith("val/loss")] or validation
        return shown + [(tag, number(self.seen[tag])) for tag in measured[:1]]


class Console:
    """Shows one run: on a terminal a live two-line bar, elsewhere a plain line every few seconds.

    Calls are cheap: between two refreshes `scalars` only stores the values, and no thread runs.

    Args:
        stream: where to write, by default the standard output.
        brief: for a job of a sweep: no header, no plain lines, no closing table.
    """

    def __init__(self, *, stream: TextIO | None = None, brief: bool = False) -> None:
        self._stream = sys.stdout if stream is None else stream
        self._out, self._animated = terminal(self._stream)
        self._brief = brief
        self._period = BAR_SECONDS if self._animated else PLAIN_SECONDS
        self._progress = Progress(0, 0, 1)
        self._live: Live | None = None
        self._due, self._pending = 0.0, False

    def start(
        self, header: Sequence[str], total_steps: int, done_steps: int, steps_per_epoch: int
    ) -> None:
        """Prints the header lines and opens the bar.

        Args:
            header: lines on the model, the data, the folder; the first is emphasised.
            total_steps: steps the whole run will have.
            done_steps: steps a resumed run already has, 0 otherwise.
            steps_per_epoch: optimizer steps in one epoch.
        """
        if not self._brief:
            lines = (Text(line, "" if index else "bold") for index, line in enumerate(header))
            self._out.print(Text("\n").join(lines), "", sep="\n", soft_wrap=not self._animated)
        self._due, self._progress = 0.0, Progress(total_steps, done_steps, steps_per_epoch)
        if self._animated:
            mine = self._stream is sys.stdout
            self._live = Live(
                self._bar(),
                console=self._out,
                auto_refresh=False,
                redirect_stdout=mine,
                # Errors sent to a file must arrive in that file, not above the bar.
                redirect_stderr=mine and sys.stderr.isatty(),
            )
            self._live.start(refresh=True)

    def scalars(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """Takes the values of one logged step; tags it lacks keep the value last seen.

        Args:
            step: optimizer steps done.
            epoch: the epoch they belong to, counted from 1.
            values: tag to value; a value that is not finite is shown as a dash.
        """
        progress = self._progress
        progress.step, progress.epoch = step, epoch
        progress.seen.update(values)
        self._pending = True
        if time.monotonic() >= self._due:
            self._show()

    def note(self, line: str) -> None:
        """Prints one line above the bar: a warning, something the guard did."""
        self._line(line, "yellow")

    def line(self, line: str) -> None:
        """Prints one line."""
        self._line(line)

    def show(self, *parts: RenderableType, brief: str | None = None) -> None:
        """Prints tables and lines, with an empty line between them; for a job of a sweep only the line
        ``brief``, where that is given."""
        if self._brief and brief is not None:
            if brief:
                self._line(f"\t   {brief}")
            return
        # Wrapped by a terminal that is narrower, but no figure is cut.
        wide = rich.console.Console(
            file=self._stream, markup=False, emoji=False, width=max(self._out.width, WIDEST)
        )
        with wide.capture() as captured:
            for part in parts:
                wide.print(part, "", sep="\n")
        self._print_stripped(captured.get())

    def say(self, line: str) -> None:
        """Prints one line above the bar."""
        self._line(line)

    def histograms(self, step: int, values: Mapping[str, Mapping[str, Any]]) -> None:
        """Not on a terminal."""

    def close(self) -> None:
        """Shows the last values and takes the bar down, cursor restored; harmless when not open."""
        if self._pending:
            self._show()
        if self._live is not None:
            self._live.stop()
            self._live = None

    def finish(self, summary: Mapping[str, Any], folder: Path | None) -> None:
        """Closes the bar and prints the closing table and the command that opens the curves.

        Args:
            summary: the content of summary.json; whatever it lacks is left out.
            folder: the run's folder, None when nothing was recorded.
        """
        self.close()
        if self._brief:
            return
        with self._out.capture() as tables:
            self._out.print("", figures(summary), "", facts(summary), "", sep="\n")
        self._print_stripped(tables.get())
        if folder is not None and (folder / "curves.png").exists():
            self._line(f"curves      {typed(folder / 'curves.png')}")
        if folder is not None and (folder / "refused").exists():
            self._line(f"why refused python train.py task=replay resume={typed(folder)}")
        if folder is not None:
            self._line(f"tensorboard --logdir {typed(folder)}", "bold")

    def _show(self) -> None:
        progress, now = self._progress, time.monotonic()
        progress.mark(now)
        self._pending = False
        if self._live is not None:
            self._live.update(self._bar(), refresh=True)
        elif not self._animated and not self._brief:
            parts = [f"step {progress.step}/{progress.total}", progress.where()]
            parts += [f"{label} {value}" for label, value in progress.fields()]
            self._line("  ".join([*parts, progress.pace()[0]]))
        # A slow terminal gets fewer refreshes, so that showing never takes more than 1 % of a run.
        self._due = now + max(self._period, 100 * (time.monotonic() - now))

    def _bar(self) -> Text:
        progress = self._progress
        done = min(1.0, progress.step / max(1, progress.total))
        before, (rate, left) = f"{progress.where()}  ", progress.pace()
        after = f"  {math.floor(100 * done)} %  {rate}  {left} left"
        room = max(0, min(WIDEST, self._out.width) - len(before) - len(after))
        full, rest = ("#", "-") if self._out.options.ascii_only else ("\u2501", "\u2500")
        filled = math.floor(room * done)
        # Assembled by hand: a refresh through rich's table and bar costs twice as much.
        text = Text.assemble(
            (before, "bold"), (full * filled, "green"), (rest * (room - filled), "dim"), after, "\n"
        )
        # Padded, so that the fields stand still while their values change.
        for label, value in progress.fields():
            text.append(f"{label} ", "dim").append(f"{value:<6}  ")
        text.rstrip()
        text.no_wrap, text.overflow = True, "ellipsis"
        return text

    def _print_stripped(self, printed: str) -> None:
        """Cells come padded to their column, and blanks at line ends would litter a log."""
        for line in Text.from_ansi(printed).split():
            line.rstrip()
            self._out.print(line, soft_wrap=True)

    def _line(self, line: str, style: str = "") -> None:
        self._out.print(Text(line, style), soft_wrap=True)


FIELDS = (
    ("train/loss", "loss", partial(number, digits=3)),
    ("grad/norm", "grad norm", partial(number, digits=3)),
    ("grad/clipped", "clipped", percent),
    ("lr", "lr", partial(number, digits=3)),
)

"""What a person sees in the terminal: a header, a live bar or plain lines, a closing table."""

from __future__ import annotations

import io
import math
import shlex
import sys
import time
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TextIO, TypeGuard

import rich.console
from rich.live import Live
from rich.table import Table
from rich.text import Text

BAR_SECONDS = 0.125
PLAIN_SECONDS = 5.0
RATE_SAMPLES = 240  # 30 s of bar refreshes, 20 min of plain lines
WIDEST = 110
MISSING = "\u2013"
STATUS_STYLES = {"completed": "bold green", "interrupted": "bold yellow"}


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
        left = _clock((self.total - self.step) / rate) if rate else MISSING
        return f"{_number(rate, 3)} steps/s", left

    def fields(self) -> list[tuple[str, str]]:
        """Label and value of everything seen so far, in the order it is shown."""
        shown = [(label, form(self.seen[tag])) for tag, label, form in FIELDS if tag in self.seen]
        validation = [tag for tag in self.seen if tag.startswith("val/")]
        measured = [tag for tag in validation if not tag.startswith("val/loss")] or validation
        return shown + [(tag, _number(self.seen[tag])) for tag in measured[:1]]


class Console:
    """Shows one run: on a terminal a live two-line bar, elsewhere a plain line every few seconds.

    Calls are cheap: between two refreshes `scalars` only stores the values, and no thread runs.

    Args:
        stream: where to write, by default the standard output.
        quiet: show nothing at all.
    """

    def __init__(self, *, stream: TextIO | None = None, quiet: bool = False) -> None:
        self._stream = sys.stdout if stream is None else stream
        if isinstance(self._stream, io.TextIOWrapper):
            # A dash that an ASCII log cannot spell must not end a training run.
            self._stream.reconfigure(errors="replace")
        self._out = rich.console.Console(
            file=self._stream, quiet=quiet, highlight=False, markup=False, emoji=False
        )
        # FORCE_COLOR makes rich call a pipe a terminal: colour is welcome there, a moving bar not.
        self._animated = self._stream.isatty() and self._out.is_interactive and not quiet
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
        for index, line in enumerate(header):
            self._line(line, "bold" if index == 0 else "")
        self._line("")
        self._progress = Progress(total_steps, done_steps, steps_per_epoch)
        self._due = 0.0
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
        with self._out.capture() as tables:
            self._out.print("", _figures(summary), "", _facts(summary), "", sep="\n")
        # Cells come padded to their column, and blanks at line ends would litter a log.
        for line in Text.from_ansi(tables.get()).split():
            line.rstrip()
            self._out.print(line, soft_wrap=True)
        if folder is not None and (folder / "curves.png").exists():
            self._line(f"curves      {_typed(folder / 'curves.png')}")
        if folder is not None:
            self._line(f"tensorboard --logdir {_typed(folder)}", "bold")

    def _show(self) -> None:
        progress, now = self._progress, time.monotonic()
        progress.mark(now)
        self._pending = False
        if self._live is not None:
            self._live.update(self._bar(), refresh=True)
        elif not self._animated:
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

    def _line(self, line: str, style: str = "") -> None:
        self._out.print(Text(line, style), soft_wrap=True)


def _figures(summary: Mapping[str, Any]) -> Table:
    """Metrics over first, best and last, then the gradient norm over median, p99 and max."""
    objective, norm = summary.get("objective") or {}, summary.get("grad_norm") or {}
    metrics: Mapping[str, Any] = summary.get("metrics") or {}
    aim = objective.get("tag")
    table = Table(box=None, padding=(0, 3, 0, 0), show_header=False, pad_edge=False)
    for column in range(5):
        table.add_column(justify="right" if 1 <= column <= 3 else "left", no_wrap=True)
    if metrics:
        table.add_row("", "first", "best", "last", style="dim")
    for tag in sorted(metrics, key=lambda tag: (tag != aim, tag[:4] != "val/")):
        figures = [_number(metrics[tag].get(key)) for key in ("first", "best", "last")]
        remark = f"objective {_number(objective.get('value'))}" if tag == aim else ""
        table.add_row(tag, *figures, remark, style="bold" if tag == aim else "")
    if norm:
        table.add_row()
        table.add_row("", "median", "p99", "max", style="dim")
        figures = [_number(norm.get(key)) for key in ("median", "p99", "max")]
        table.add_row("gradient norm", *figures)
    return table


def _facts(summary: Mapping[str, Any]) -> Table:
    """What clipping and the guard did, how the run ended, how long it took."""
    clip, guard = summary.get("clip") or {}, summary.get("guard") or {}
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True, min_width=10)
    table.add_column(max_width=WIDEST - 12)
    if clip:
        table.add_row("clipping", Text(_clipping(clip)))
    if clip.get("verdict"):
        table.add_row("", Text(str(clip["verdict"])))
    if guard.get("skipped") or guard.get("rewound"):
        table.add_row("guard", Text(_guarded(guard), "yellow"))
    status, seconds = str(summary.get("status", "ended")), summary.get("seconds")
    took = f"{_number(seconds)} s"
    took += f" ({_clock(seconds)})" if _is_number(seconds) and seconds >= 100 else ""
    line = f": {_count(summary.get('steps'), 'step')}, {_count(summary.get('epochs'), 'epoch')}"
    line += f", {took}, {_number(summary.get('steps_per_second'))} steps/s"
    line += f", seed {summary.get('seed', MISSING)}"
    style = STATUS_STYLES.get(status, "bold red")
    table.add_row("run", Text.assemble((status, style), line))
    return table


def _clipping(clip: Mapping[str, Any]) -> str:
    limit, suggested = clip.get("max_norm"), clip.get("suggested_max_norm")
    at = f" at {limit:g}" if _is_number(limit) else ""
    p90 = f" (p90 of the norms {_number(suggested, 3)})" if _is_number(suggested) else ""
    return f"{clip.get('mode')}{at} bound on {_percent(clip.get('fraction'))} of steps{p90}"


def _guarded(guard: Mapping[str, Any]) -> str:
    skipped, rewound = guard.get("skipped", 0), guard.get("rewound", 0)
    line = f"{_count(skipped, 'update')} skipped, {_count(rewound, 'rewind')}"
    causes = [f"{cause} {n}" for cause, n in (guard.get("causes") or {}).items() if n]
    return f"{line} ({', '.join(causes)})" if causes else line


def _count(number: Any, noun: str) -> str:
    return f"{MISSING if number is None else number} {noun}{'' if number == 1 else 's'}"


def _typed(path: Path) -> str:
    """The path as one would type it here: relative where it lies below, quoted for the shell."""
    path, here = path.absolute(), Path.cwd()
    # A process that changed into its own run folder must not answer ".": the shell is elsewhere.
    inside = path.is_relative_to(here) and path != here
    return shlex.quote(str(path.relative_to(here) if inside else path))


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


def _number(value: Any, digits: int = 4) -> str:
    """Four significant digits, exponent only where plain digits would run long."""
    if not _is_number(value):
        return MISSING
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.{digits - 2}e}"
    return f"{value:#.{digits}g}".rstrip(".") if abs(value) < 10**digits else f"{value:.0f}"


def _percent(share: Any) -> str:
    if not _is_number(share):
        return MISSING
    return f"{100 * share:.1f} %" if 0 < share < 0.01 else f"{100 * share:.0f} %"


def _clock(seconds: float) -> str:
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


FIELDS = (
    ("train/loss", "loss", partial(_number, digits=3)),
    ("grad/norm", "grad norm", partial(_number, digits=3)),
    ("grad/clipped", "clipped", _percent),
    ("lr", "lr", partial(_number, digits=3)),
)

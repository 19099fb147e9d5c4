"""The sweep in one table that fits the terminal, and in one line."""

from __future__ import annotations

import math
import time
from itertools import islice

from rich.cells import set_cell_size
from rich.text import Text

from trainer.closing import STATUS_STYLES
from trainer.sweeps.pulse import Mark
from trainer.sweeps.standing import Standing
from trainer.wording import MISSING, clock, number

MOST_RUNNING, MOST_BEST = 20, 5  # rows
BAR, STEPS, VALUE, WIDEST_VALUE = 12, 14, 8, 24  # cells of a column
INDENT = " " * 6
FAR = 600.0  # s ahead from which an end is told by the clock on the wall
Keys = dict[str, tuple[str, int]]
STYLES = STATUS_STYLES | {"diverged": "bold red", "failed": "bold red", "running": "bold"}


def overview(standing: Standing, width: int, height: int, ascii_only: bool = False) -> Text:
    """How many jobs there are of each status, how long they take, those that run, and the best.

    Args:
        standing: of the sweep.
        width: of the terminal; nothing is wider.
        height: of the terminal; there are fewer lines.
        ascii_only: draw the bars with what every terminal has.
    """
    full, rest = ("#", "-") if ascii_only else ("━", "─")
    lines = [_counts(standing), _whole(standing, width, full, rest)]
    running, best = standing.ranked(), standing.best()
    room = height - len(lines) - 2  # the headings, and the line that the cursor is on
    most_best = min(len(best), MOST_BEST, max(0, room - 1) // 2)
    shown = min(len(running), MOST_RUNNING, room - most_best - bool(most_best))
    if shown < len(running):
        shown -= 1  # for the line that says so
    keys = _headed(standing, width)
    if shown > 0 or most_best:
        names = "  ".join(set_cell_size(name, cells) for name, cells in keys.values())
        lines.append(Text(_cells("job", "progress", standing.tag, "best", names), "dim"))
    if shown > 0:
        rows = running[:shown] if shown < len(running) else sorted(running)
        lines += [_running(standing, keys, *row, full, rest) for row in rows]
        if hidden := len(running) - shown:
            lines.append(Text(f"{INDENT}{hidden} more running, none of them better so far", "dim"))
    if most_best:
        ended = f"the best of {len(best)} completed" if len(best) > 1 else "completed"
        lines.append(Text(INDENT + ended, "dim"))
        for place, job in islice(best, most_best):
            took = f"{job.summary['seconds']:.1f} s" if "seconds" in job.summary else ""
            top = (job.summary.get("metrics") or {}).get(standing.tag, {}).get("best")
            own = _own(standing, keys, place)
            lines.append(Text(_cells(str(place), took, *_values(job.value, top), own)))
    for line in lines:
        line.truncate(width, overflow="ellipsis")
    return Text("\n").join(lines[: max(1, height - 1)])


def in_a_line(standing: Standing) -> str:
    """How far the sweep has come, for a log."""
    counts = ", ".join(f"{many} {status}" for status, many in standing.counts.items())
    line = f"{_percent(standing)}  {counts}  {times(standing)}"
    if (leader := standing.leader()) is None:
        return line
    place, value = leader
    return f"{line}  best {standing.tag} {number(value)}: #{place} {standing.differs(place)}".rstrip()


def times(standing: Standing) -> str:
    """How long the sweep has taken, and how long it is likely to go on."""
    line, left = clock(standing.elapsed), standing.left
    if standing.signal or not left:
        return line
    ends = time.strftime(", until %H:%M", time.localtime(time.time() + left)) if left >= FAR else ""
    return f"{line}, about {clock(left)} left{ends}"


def _counts(standing: Standing) -> Text:
    line = Text(f"{len(standing.overrides)} jobs:", "bold")
    for status, many in standing.counts.items():
        line.append(f"  {many} {status}", STYLES.get(status, "dim"))
    if standing.kept:
        line.append(f"  ({len(standing.kept)} of them before)", "dim")
    return line


def _whole(standing: Standing, width: int, full: str, rest: str) -> Text:
    if standing.signal:
        told = "asked to stop: those that run save what they have; Ctrl-C once more ends them at once"
        return Text(told, "bold yellow")
    after = f"  {_percent(standing)}  {times(standing)}"
    room = max(0, min(width, 100) - len(after))
    filled = math.floor(room * min(1.0, standing.share))
    return Text.assemble((full * filled, "green"), (rest * (room - filled), "dim"), after)


def _percent(standing: Standing) -> str:
    return f"{math.floor(100 * min(1.0, standing.share)):3d} %"


def _running(
    standing: Standing, keys: Keys, place: int, mark: Mark | None, full: str, rest: str
) -> Text:
    own = _own(standing, keys, place)
    if mark is None:
        return Text(_cells(str(place), "starts", "", "", own))
    filled = math.floor(BAR * min(1.0, mark.step / max(1, mark.total)))
    progress = f"{full * filled}{rest * (BAR - filled)} {mark.step}/{mark.total}"
    text = Text(_cells(str(place), progress, *_values(mark.value, mark.best), own))
    text.stylize("green", len(INDENT), len(INDENT) + filled)
    text.stylize("dim", len(INDENT) + filled, len(INDENT) + BAR)
    return text


def _values(last: float | None, best: float | None) -> tuple[str, str]:
    """Nothing where nothing has been measured yet; a dash for what is no number."""
    return "" if last is None else number(last), "" if best is None else number(best)


def _headed(standing: Standing, width: int) -> Keys:
    """A column for each key: its name, in short where all would not fit, and its cells."""
    for short in (False, True):
        names = {key: key.rpartition(".")[2] if short else key for key in standing.keys}
        if short and len(set(names.values())) < len(names):  # the same of two parts
            names = {key: key for key in names}
        keys = {
            key: (name, max(len(name), min(standing.keys[key], WIDEST_VALUE)))
            for key, name in names.items()
        }
        if len(_cells("", "", "", "", "")) + sum(cells + 2 for _, cells in keys.values()) <= width:
            break
    return keys


def _own(standing: Standing, keys: Keys, place: int) -> str:
    settings = standing.settings[place]
    return "  ".join(
        set_cell_size(settings.get(key, MISSING), cells) for key, (_, cells) in keys.items()
    )


def _cells(job: str, progress: str, value: str, best: str, own: str) -> str:
    progress = set_cell_size(progress, BAR + STEPS)
    return f"{job:>4}  {progress}  {value:>{VALUE}}  {best:>{VALUE}}  {own}"

"""The stability map: the objective over two numbers, and what diverged or spiked on the way."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.pictures.comparison_axes import EDGE, GREY, head
from trainer.pictures.drawing import BLUE, INK, ORANGE, RED, STYLE, WIDTH, plain, ticks
from trainer.sweeps.comparison import Variant
from trainer.sweeps.stability import Map, Rates
from trainer.wording import number

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CELL, HEAD, ABOVE, FOOT, LEFT, SIDE, GAP = 0.5, 0.6, 0.35, 0.8, 0.85, 2.3, 0.3  # inches
FAR, MOST_TOLD, PALE_RED = 6.0, 12, "#F6D5D8"
LUMINANCE = (0.299, 0.587, 0.114)
READ = "×: diverged    ▲: a loss spiked or a step was refused    dark line: around what is stable    "
READ += "white frame: the best"


class Colours:
    """One scale of colours for all maps, dark for the best. Cells further from the best than 6 times
    the distance of the middle one have the colour of the end.

    Args:
        maps: whose cells are coloured.
        higher: whether more is better.
    """

    def __init__(self, maps: Sequence[Map], higher: bool) -> None:
        from matplotlib import colormaps

        middles = [cell.middle for one in maps for cell in one.cells.values()]
        values = sorted((value for value in middles if value is not None), reverse=higher) or [0.0]
        self.best, self.worst = values[0], values[-1]
        usual = values[(len(values) - 1) // 2] - self.best
        if usual and abs(self.worst - self.best) > FAR * abs(usual):
            self.worst = self.best + FAR * usual
        self.log = not higher and 0 < 20 * self.best < self.worst
        self.map = colormaps["viridis"]

    def share(self, value: float) -> float:
        """How far from the best a value is, from 0 to 1."""
        if self.log:
            value, best, worst = (
                math.log(max(one, self.best)) for one in (value, self.best, self.worst)
            )
        else:
            best, worst = self.best, self.worst
        return min(1.0, (value - best) / (worst - best)) if worst != best else 0.0


def draw_maps(
    maps: Sequence[Map],
    rates: tuple[str, list[Rates]] | None,
    objective: tuple[str, bool],
    path: Path,
) -> Path:
    """Draws the maps, two abreast; beside a single one, how sensitive each row is to the learning rate.

    Args:
        maps: one or more, over the same two keys.
        rates: what `trainer.sweeps.stability.rates` found.
        objective: its tag, and whether more of it is better.
        path: of the PNG.

    Returns:
        The path.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    tag, higher = objective
    tall = min(max(CELL * len(maps[0].ys), 1.6), 6.0)
    each = ABOVE * (len(maps) > 1) + tall + FOOT
    height = HEAD + each * -(-len(maps) // 2)
    rows = {} if rates is None or rates[0] != maps[0].x else _by_row(maps, rates[1])
    beside = len(maps) == 1 and any(one.sensitivity is not None for one in rows.values())
    room = WIDTH - LEFT - EDGE
    wide = room - SIDE - GAP if beside else room if len(maps) == 1 else (room - LEFT) / 2
    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), dpi=110)
        seeds = max(cell.runs for one in maps for cell in one.cells.values())
        told = f", median of {seeds} seeds" if seeds > 1 else ""
        better = "more is better" if higher else "less is better"
        head(figure, f"{tag} over {maps[0].x} and {maps[0].y}{told}", better)
        figure.text(LEFT / WIDTH, 0.13 / height, READ, size=8.5, color=GREY)
        colours = Colours(maps, higher)
        for index, one in enumerate(maps):
            row, column = divmod(index, 2)
            left, bottom = LEFT + column * (wide + LEFT), height - HEAD - (row + 1) * each + FOOT
            box = (left / WIDTH, bottom / height, wide / WIDTH, tall / height)
            axes = figure.add_axes(box)
            axes.set_title(" ".join(f"{key}={value}" for key, value in one.settings.items()))
            own = [rows.get(_row(one, y)) for y in one.ys]
            _cells(axes, one, colours)
            _surround(axes, one, own)
            if beside:
                place = ((WIDTH - EDGE - SIDE) / WIDTH, box[1], SIDE / WIDTH, box[3])
                _sensitivities(figure, place, own)
        figure.savefig(path, pil_kwargs={"compress_level": 3})
    return path


def _by_row(maps: Sequence[Map], rates: Sequence[Rates]) -> dict[str, Rates]:
    y = maps[0].y
    return {_name({**one.settings, y: float(one.settings[y])}): one for one in rates}


def _row(one: Map, y: float) -> str:
    return _name({**one.settings, one.y: y})


def _name(settings: dict[str, Any]) -> str:
    return str(sorted(settings.items()))


def _cells(axes: Axes, one: Map, colours: Colours) -> None:
    white = (1.0, 1.0, 1.0, 1.0)
    shown = np.array([[white] * len(one.xs)] * len(one.ys))
    from matplotlib.colors import to_rgba

    for (x, y), cell in one.cells.items():
        place = one.ys.index(y), one.xs.index(x)
        colour = (
            colours.map(colours.share(cell.middle)) if cell.middle is not None else to_rgba(PALE_RED)
        )
        shown[place] = colour
        _tell(
            axes,
            cell,
            place[1],
            place[0],
            float(np.dot(colour[:3], LUMINANCE)) < 0.5,
            max(shown.shape[:2]) <= MOST_TOLD,
        )
    axes.imshow(shown, aspect="auto", origin="lower", interpolation="nearest")
    axes.set_xticks(range(len(one.xs)), [plain(x, 0) for x in one.xs])
    axes.set_yticks(range(len(one.ys)), [plain(y, 0) for y in one.ys])
    axes.tick_params(length=0)
    axes.set(xlabel=one.x, ylabel=one.y)
    axes.spines[:].set_visible(False)
    reached = {place: cell.middle for place, cell in one.cells.items()}
    best = next((place for place, value in reached.items() if value == colours.best), None)
    if best is not None:
        corner = one.xs.index(best[0]) - 0.44, one.ys.index(best[1]) - 0.42
        from matplotlib.patches import Rectangle

        axes.add_patch(Rectangle(corner, 0.88, 0.84, fill=False, ec="white", lw=1.6))


def _tell(axes: Axes, cell: Variant, x: int, y: int, dark: bool, in_words: bool) -> None:
    """What is written into a cell: the value, a cross where runs diverged, a mark where one spiked."""
    colour = "white" if dark else INK
    if cell.middle is None:
        axes.plot([x], [y], "x", color=RED, ms=7, mew=2.0)
    elif in_words:
        axes.text(x, y, number(cell.middle, 3), color=colour, ha="center", va="center", size=8)
        if cell.diverged:
            lost = f"×{len(cell.diverged)} of {cell.runs}"
            axes.text(x - 0.42, y + 0.4, lost, color=colour, ha="left", va="top", size=6)
    if cell.middle is not None and (any(cell.spikes.values()) or any(cell.refused.values())):
        axes.plot([x + 0.38], [y + 0.32], "^", color=ORANGE, ms=5, mec=INK, mew=0.6)


def _surround(axes: Axes, one: Map, rows: Sequence[Rates | None]) -> None:
    """A line around the cells that are stable."""
    stable = {(x, y) for y, row in enumerate(rows) if row for x in map(one.xs.index, row.stable)}
    edges: list[Any] = []
    for x, y in stable:
        left, right, low, high = x - 0.5, x + 0.5, y - 0.5, y + 0.5
        sides = {
            (x - 1, y): ([left, left], [low, high]),
            (x + 1, y): ([right, right], [low, high]),
            (x, y - 1): ([left, right], [low, low]),
            (x, y + 1): ([left, right], [high, high]),
        }
        edges += [side for beside, side in sides.items() if beside not in stable]
    for xs, ys in edges:
        axes.plot(xs, ys, color=INK, lw=2.2, clip_on=False, solid_capstyle="projecting")
    axes.set(xlim=(-0.5, len(one.xs) - 0.5), ylim=(-0.5, len(one.ys) - 0.5))


def _sensitivities(
    figure: Figure, place: tuple[float, float, float, float], rows: Sequence[Rates | None]
) -> None:
    axes = figure.add_axes(place)
    found = [row.sensitivity if row is not None else None for row in rows]
    axes.barh(range(len(rows)), [value or 0.0 for value in found], color=BLUE, height=0.6)
    most = max((value or 0.0 for value in found), default=0.0) or 1.0
    for y, value in enumerate(found):
        axes.text((value or 0.0) + 0.03 * most, y, number(value, 3), va="center", size=8, color=GREY)
    axes.set(ylim=(-0.5, len(rows) - 0.5), xlim=(0, 1.25 * most))
    axes.set_yticks([])
    axes.set_xlabel("learning-rate sensitivity (loss)")
    ticks(axes.xaxis)

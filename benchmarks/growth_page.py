"""docs/growth.png and docs/growth.md, from the figures of `benchmarks.growth`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.jobs import JOBS
from benchmarks.tables import Part, in_markdown
from trainer.pictures.drawing import BLUE, GREEN, INK, ORANGE, STYLE, WIDTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from benchmarks.growth import Growth

DOCS = Path(__file__).resolve().parents[1] / "docs"
PALE, FAINT = "#7A7A7A", "#E3E3E3"
PAGE = """\
# What grows, and how far one machine goes

{of}.

The time of a step is held against a bare loop: forward, backward and fused Adam on the same model and
the same batches, which measures no norm and records nothing; medians of the ratios of paired rounds. A
model-step of a sweep is the median of its turns, of which large sweeps have only one.

![Time of a step over the bare loop by parameters and by tensors, time of a model-step by members of a \
sweep, and megabytes of record per million steps](growth.png)

## A step

{parameters}

{tensors}

A step of Trimtab also measures the norm, judges it, counts it and, every twentieth time, makes a line
of the record; on the other side it calls Adam's kernel on lists gathered once. At {smallest} parameters
both together come to {small_ratio:.2f}x. What grows with the model is one more read of the gradients:
{large_ratio:.2f}x at {largest} parameters, where torch's own clip takes {large_clip:.2f}x.

**One machine** holds what fits into memory: weights, gradients and Adam's two moments are 16 bytes a
parameter in float32, and the process that trained {largest} of them peaked at {peak:.1f} GB. By that
arithmetic 24 GiB are full at {fits:.1f}·10⁹ parameters, before any activations. `guard=rewind` keeps up
to two more copies of weights and moments, within `guard.budget_mb`.

**Beyond it**: `trainer=ddp` for more samples a second, but every process of it holds the whole state;
for more state than one machine holds `trainer=fsdp`, which cuts it up (torch's FSDP2). Less
state by `optimizer=adafactor`, fewer activations by `trainer.checkpoint_activations=true`.

## A sweep

{members}

**One process** trains {most} members as one at {rate:,.0f} model-steps/s, {gain:.0f} times the
{alone_rate:,.0f} of one run alone; a stack of {best} is the cheapest per model-step.

**Beyond it**: `hydra/launcher=vectorized`, the default, has a process with a stack of its own for each
processor, and cuts stacks that memory would not hold; `hydra/launcher=slurm` has as many machines as the
queue gives.

## The record

{log}

The record grows by lines, not by steps: ten times the `trainer.log_every` is a tenth of the bytes. Lines
are appended, so a long record costs a step nothing; who reads all of it are pictures and TensorBoard.

**Beyond** what these like to read, raise `trainer.log_every`; `diagnostics=full` is for short runs.
"""


def write(growth: Growth, parts: Sequence[Part], of: str) -> None:
    """Both files; ``of`` says how, when and where the figures were measured."""
    draw(growth, DOCS / "growth.png")
    (DOCS / "growth.md").write_text(page(growth, parts, of), encoding="utf-8")


def page(growth: Growth, parts: Sequence[Part], of: str) -> str:
    """The text, its figures filled in."""
    tables = [in_markdown(part.header, part.rows) for part in parts]
    parameters, tensors, members, log = tables
    small, large = min(growth.parameters), max(growth.parameters)
    first, last = growth.parameters[small], growth.parameters[large]
    most = max(growth.members)
    rate = 1e6 / growth.members[most]
    return PAGE.format(
        of=of,
        parameters=parameters,
        tensors=tensors,
        members=members,
        log=log,
        small_ratio=first["trimtab"],
        smallest=f"{small:,}",
        largest=f"{large:,}",
        large_ratio=last["trimtab"],
        large_clip=last["clip_grad_norm_"],
        peak=growth.peak / 1e3,
        fits=24 * 2**30 / 16 / 1e9,
        most=f"{most:,}",
        rate=rate,
        gain=rate * growth.alone / 1e6,
        alone_rate=1e6 / growth.alone,
        best=min(growth.members, key=lambda k: growth.members[k]),
    )


def draw(growth: Growth, path: Path) -> None:
    """Four panels: parameters, tensors, members, record."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 7.0), dpi=140, layout="constrained")
        (a, b), (c, d) = figure.subplots(2, 2)
        figure.get_layout_engine().set(hspace=0.09, wspace=0.06)
        _steps(
            a,
            growth.parameters,
            "A step by parameters",
            "parameters in six tensors, and the time of a bare step",
        )
        _steps(
            b,
            growth.tensors,
            "A step by tensors",
            "tensors of 32 or 1,024 entries, and the time of a bare step",
        )
        _members(c, growth)
        _log(d, growth)
        figure.savefig(path)


def _steps(axes: Axes, rows: dict[int, dict[str, float]], title: str, label: str) -> None:
    sizes = list(rows)
    axes.axhline(1.0, color=PALE, linewidth=1.0, linestyle=(0, (4, 3)), label="bare loop")
    for name, colour, shown in (
        ("clip_grad_norm_", ORANGE, "bare loop + clip_grad_norm_"),
        ("trimtab", BLUE, "Trimtab"),
    ):
        values = [row[name] for row in rows.values()]
        axes.plot(sizes, values, color=colour, marker="o", markersize=4, linewidth=1.6, label=shown)
    axes.set_xscale("log")
    axes.set_xticks(sizes, [f"{size:,}\n{_time(rows[size]['bare'])}" for size in sizes])
    axes.minorticks_off()
    most = max(max(row["trimtab"], row["clip_grad_norm_"]) for row in rows.values())
    axes.set_ylim(0, 1.1 * max(most, 1.3))
    _dress(axes, title, label, "time of a step, bare loop = 1")


def _members(axes: Axes, growth: Growth) -> None:
    style = {"color": PALE, "linewidth": 1.0, "linestyle": (0, (4, 3))}
    axes.axhline(growth.alone, label="one run by itself", **style)
    look = {"marker": "o", "markersize": 4, "linewidth": 1.6}
    axes.plot(*zip(*growth.members.items(), strict=True), color=BLUE, label="one stack", **look)
    if growth.chunked:
        axes.plot(
            *zip(*growth.chunked.items(), strict=True), color=GREEN, label="in stacks of 64", **look
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(list(growth.members), [f"{k:,}" for k in growth.members])
    axes.minorticks_off()
    low = min([*growth.members.values(), *growth.chunked.values()])
    high = max([*growth.members.values(), growth.alone])
    ticks = [t * 10**p for p in range(0, 5) for t in (1, 2, 5) if low / 1.6 <= t * 10**p <= high * 1.6]
    axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_ylim(low / 1.5, high * 1.5)
    _dress(axes, "A sweep by members", "members", "µs of a model-step")


def _log(axes: Axes, growth: Growth) -> None:
    places = [-(number + 0.6 * (number // 3)) for number in range(len(growth.log))]
    names = [f"{JOBS[job].title}, {level}" for job, level in growth.log]
    for kind, (label, colour) in enumerate((("metrics.jsonl", BLUE), ("event file", ORANGE))):
        values = [sizes[kind] for sizes in growth.log.values()]
        axes.plot(values, places, "o", color=colour, markersize=6, label=label)
    for place, sizes in zip(places, growth.log.values(), strict=True):
        axes.plot(sorted(sizes), [place, place], color=FAINT, linewidth=2.5, zorder=0)
        at = (max(sizes), place)
        shown = _bytes(sum(sizes))
        axes.annotate(shown, at, (8, 0), textcoords="offset points", va="center", color=INK)
    axes.set_xscale("log")
    axes.set_yticks(places, names)
    axes.tick_params(axis="y", length=0)
    most = max(max(sizes) for sizes in growth.log.values())
    axes.set_xlim(5, 5 * most)
    axes.set_ylim(min(places) - 0.7, 0.7)
    axes.set_xticks([10, 100, 1000, 10000], ["10 MB", "100 MB", "1 GB", "10 GB"])
    axes.minorticks_off()
    axes.grid(axis="x", color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    label = "of a million steps, a line every 20, by diagnostics; both together at the right"
    _dress(axes, "The record", label, "")


def _dress(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, pad=22)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.01, 0.99), ncols=3, borderaxespad=0.0)
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)


def _time(micros: float) -> str:
    if micros < 1e3:
        return f"{micros:.0f} µs"
    return f"{micros / 1e3:.2g} ms" if micros < 1e5 else f"{micros / 1e6:.2g} s"


def _bytes(megabytes: float) -> str:
    return f"{megabytes:.0f} MB" if megabytes < 1e3 else f"{megabytes / 1e3:.1f} GB"

"""What grows with a run, and how: ``python -m benchmarks.growth``, about five minutes on a quiet core.

parameters  a step of a network with six tensors and 10³ to 10⁸ parameters
tensors     a step of a chain of layers, 6 to 2,000 tensors
members     1 to 1,024 runs of the MLP problem as one stack, and in stacks of 64 one after another
log         bytes of metrics.jsonl and of the event file, for each level of diagnostics

Steps are timed against a bare loop, forward, backward and fused Adam, which neither measures a norm nor
records anything; beside it the same loop with torch's clip_grad_norm_. The three share one model and one
optimizer, take turns, and ratios are formed round by round. ``--write`` makes docs/growth.md and
docs/growth.png of the figures.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_

from benchmarks.__main__ import surroundings
from benchmarks.diagnostics import LEVELS
from benchmarks.jobs import JOBS, NORM, RATE
from benchmarks.memory import high_water
from benchmarks.sweep import alone, together
from benchmarks.tables import Part, shown
from benchmarks.timing import Entry, calibrate, interleave, median_ratio
from trainer.clipping import ClipByNorm
from trainer.data.tensors import TensorData
from trainer.loop import Trainer
from trainer.tensorboard import TensorBoard

PARAMETERS = tuple(10**power for power in range(3, 9))
TENSORS = (6, 20, 60, 200, 600, 2000)
MEMBERS, CHUNK = (1, 4, 16, 64, 256, 1024), 64
ROWS, SAMPLES = 8, 64  # in a batch, and in all
PER_MILLION = 10**6 // 20  # lines of the record, at the default interval


@dataclass
class Growth:
    """Everything that was measured.

    Attributes:
        parameters: of each size, what `steps` returns.
        tensors: likewise, of each number of tensors.
        members: µs of a model-step as one stack, of each number of members.
        chunked: likewise, in stacks of `CHUNK` one after another.
        alone: µs of a step of one run by itself.
        log: MB per 10⁶ steps of metrics.jsonl and of the event file, by job and level.
        peak: high-water mark of the process after the largest model, in MB.
    """

    parameters: dict[int, dict[str, float]] = field(default_factory=dict)
    tensors: dict[int, dict[str, float]] = field(default_factory=dict)
    members: dict[int, float] = field(default_factory=dict)
    chunked: dict[int, float] = field(default_factory=dict)
    alone: float = math.nan
    log: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)
    peak: float = math.nan


def of_size(parameters: int) -> nn.Sequential:
    """Three layers, six tensors, and about so many parameters."""
    width = round(math.sqrt(33**2 + parameters) - 33)
    layers = (nn.Linear(32, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 32))
    return nn.Sequential(*layers)


def chain(tensors: int) -> nn.Sequential:
    """Half as many small layers."""
    layers = itertools.chain.from_iterable((nn.Linear(32, 32), nn.Tanh()) for _ in range(tensors // 2))
    return nn.Sequential(*layers)


def steps(model: nn.Module, rounds: int, seconds: float) -> dict[str, float]:
    """µs of a bare step, and what ours and that with torch's clip take of it: ``bare``, ``trimtab``,
    ``clip_grad_norm_``."""
    torch.manual_seed(0)
    batches = TensorData(
        (torch.randn(SAMPLES, 32), torch.randn(SAMPLES, 32)),
        (torch.empty(0, 32), torch.empty(0, 32)),
        batch_size=ROWS,
    )
    optimizer = torch.optim.Adam(model.parameters(), RATE, fused=True)
    trainer = Trainer(
        model, nn.MSELoss(), optimizer, clip=ClipByNorm(NORM), max_epochs=10**9, device="cpu"
    )

    def ours(count: int) -> float:
        trainer.limits = (None, trainer.step + count)
        return trainer.fit(batches)["seconds"]

    entries = [
        Entry("bare", partial(by_hand, model, optimizer, batches, False)),
        Entry("trimtab", ours),
        Entry("clip_grad_norm_", partial(by_hand, model, optimizer, batches, True)),
    ]
    calibrate(entries[0], seconds, first=2)
    for entry in entries:
        entry.amount = max(2, entries[0].amount)
    interleave(entries, rounds)
    bare = entries[0].seconds
    found = {entry.name: median_ratio(entry.seconds, bare) or math.nan for entry in entries[1:]}
    return {"bare": 1e6 * statistics.median(bare) / entries[0].amount} | found


def by_hand(
    model: nn.Module, optimizer: torch.optim.Optimizer, data: TensorData, clips: bool, count: int
) -> float:
    """Seconds of so many steps by hand, from the same batches."""
    criterion, parameters, epochs = nn.MSELoss(), list(model.parameters()), itertools.count()
    batches = itertools.chain.from_iterable(data.batches(epoch) for epoch in epochs)
    start = time.perf_counter()
    for inputs, targets in itertools.islice(batches, count):
        optimizer.zero_grad(set_to_none=True)
        criterion(model(inputs), targets).backward()
        if clips:
            clip_grad_norm_(parameters, NORM, foreach=True)
        optimizer.step()
    return time.perf_counter() - start


def stacks(members: int, chunk: int, count: int, rounds: int) -> float:
    """µs of a model-step where so many runs are trained in stacks of ``chunk``, one after another."""
    times = []
    for _ in range(rounds):
        gc.collect()
        sizes = [chunk] * (members // chunk)
        times.append(sum(together(size, count) for size in sizes))
    return 1e6 * statistics.median(times) / (members * count)


def logged(job: str, diagnostics: Callable[[], object]) -> tuple[float, float]:
    """MB per 10⁶ steps of metrics.jsonl and of the event file, from fifty lines after the first."""
    sizes = []
    for count in (20, 70):
        model, data = JOBS[job].network(), JOBS[job].data()
        optimizer = torch.optim.Adam(model.parameters(), RATE, fused=True)
        limits = {"max_epochs": None, "max_steps": count, "log_every": 1}
        parts = {"clip": ClipByNorm(NORM), "diagnostics": diagnostics(), "device": "cpu"}
        trainer = Trainer(model, JOBS[job].criterion, optimizer, **parts, **limits)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            view = TensorBoard(folder)
            trainer.fit(data, folder, [view])
            view.close()
            files = (folder / "metrics.jsonl", view.path)
            sizes.append([file.stat().st_size for file in files])
    lines, events = (
        (after - before) / 50 * PER_MILLION / 1e6 for before, after in zip(*sizes, strict=True)
    )
    return lines, events


def measured(
    parameters: Sequence[int],
    tensors: Sequence[int],
    members: Sequence[int],
    rounds: int,
    seconds: float,
) -> Growth:
    """All of it, on one thread."""
    torch.set_num_threads(1)
    growth, count = Growth(), round(200 * seconds)
    for size in parameters:
        growth.parameters[size] = steps(of_size(size), rounds, seconds)
        gc.collect()
    growth.peak = high_water()
    for number in tensors:
        growth.tensors[number] = steps(chain(number), rounds, seconds)
    growth.alone = 1e6 * statistics.median(alone(300) for _ in range(rounds)) / 300
    for number in members:
        few = max(1, min(rounds, 256 // number))  # the larger ones take long, and vary less
        growth.members[number] = stacks(number, number, count, few)
        if number > CHUNK:
            growth.chunked[number] = stacks(number, CHUNK, count, few)
    growth.log = {
        (job, level): logged(job, make) for job in ("mlp", "unet") for level, make in LEVELS.items()
    }
    return growth


def parts(growth: Growth) -> list[Part]:
    """As tables."""
    header = ("bare, µs", "Trimtab, to bare", "with clip_grad_norm_, to bare", "Trimtab beyond bare, µs")
    found = []
    for title, rows in (("parameters", growth.parameters), ("tensors", growth.tensors)):
        cells = []
        for size, row in rows.items():
            bare, ours, clips = row["bare"], row["trimtab"], row["clip_grad_norm_"]
            beyond = f"{bare * (ours - 1):.0f}"
            cells.append([f"{size:,}", f"{bare:.0f}", f"{ours:.2f}x", f"{clips:.2f}x", beyond])
        found.append(Part(f"A step, by {title}", (title, *header), cells))
    cells = [
        [
            *(f"{k:,}", f"{each:.0f}", f"{growth.chunked[k]:.0f}" if k in growth.chunked else "-"),
            f"{growth.alone / each:.1f}x",
        ]
        for k, each in growth.members.items()
    ]
    columns = ("members", "one stack, µs", f"stacks of {CHUNK}, µs", "as fast as one by one")
    found.append(Part(f"A model-step of a sweep; alone it takes {growth.alone:.0f} µs", columns, cells))
    cells = [
        [JOBS[job].title, level, f"{lines:.1f}", f"{events:.1f}"]
        for (job, level), (lines, events) in growth.log.items()
    ]
    columns = ("job", "diagnostics", "metrics.jsonl", "event file")
    return [*found, Part("The record of 10⁶ steps, a line every 20, in MB", columns, cells)]


def main() -> int:
    """Measures, prints, and writes if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="turns of each loop")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of one turn, about")
    parser.add_argument("--most", type=float, default=1e8, help="parameters at most")
    parser.add_argument("--members", type=int, default=1024, help="runs in a stack at most")
    parser.add_argument("--write", action="store_true", help="write docs/growth.md and docs/growth.png")
    o = parser.parse_args()
    sizes = [size for size in PARAMETERS if size <= o.most]
    members = [number for number in MEMBERS if number <= o.members]
    given = f"`python -m benchmarks.growth --rounds {o.rounds} --seconds {o.seconds:g} --write`"
    of = f"{given}: {surroundings()}, one thread"
    growth = measured(sizes, TENSORS, members, o.rounds, o.seconds)
    status = shown(parts(growth))
    if o.write:
        from benchmarks.growth_page import write

        write(growth, parts(growth), of)
    return status


if __name__ == "__main__":
    raise SystemExit(main())

"""Sweeps as whole commands, side by side: `python -m benchmarks.sweep`.

The seed problem (1000 random rows, an MLP 10-50-50-1, Adam, gradients clipped to a norm), `--points`
learning rates and thresholds, `--epochs` each. Timed from the shell, interpreter and imports included:

vectorized  python train.py -m hydra/launcher=vectorized experiment=seed_problem …
processes   the same with hydra.launcher.strategy=processes: each job by itself, in a process of its own
basic       the same with hydra/launcher=basic: one job after another
joblib      the same with hydra/launcher=parallel, where Hydra's joblib launcher is installed
lightning   a script of the usual kind: `@hydra.main`, -m, Lightning's Trainer with its logger and clip

The commands take turns; the ratios are formed round by round. Processor seconds of a command and all its
processes stand beside the wall's: they tell more on a machine that has other work. Where one after
another would take too long, that command is left out and the table says so; `--all` runs it too. Beside
them, in one process, model-steps/s in the loop: `--members` runs trained as one against one alone.

`--model unet` (or another of the shipped ones) sweeps that one with its own data instead, `--steps`
each, against the bar that holds for every model: never slower than the better of basic and joblib.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.lightning_sweep import LIGHTNING
from benchmarks.tables import Part, shown
from benchmarks.timing import Bar, Entry, NotInstalled, command_seconds, interleave, median_ratio, spread

ROOT = Path(__file__).resolve().parents[1]
# points, epochs: (at least so many times as fast as basic, as lightning)
BARS = {(16, 50): (2.0, 15.0), (64, 200): (6.0, None), (64, 50): (None, 40.0)}
IN_LOOP = 8.0
MODELS = {  # each with data of its kind; without schedules that want a thousand steps
    "mlp": ["experiment=seed_problem"],
    "unet": [],
    "cnn": ["experiment=cnn_classifier"],
    "rnn": ["experiment=rnn_text"],
    "transformer": ["experiment=transformer_text", "scheduler=none", "scheduler.warmup=0"],
}
LAUNCHERS = {
    "vectorized": ["hydra/launcher=vectorized"],
    "processes": ["hydra/launcher=vectorized", "hydra.launcher.strategy=processes"],
    "basic": ["hydra/launcher=basic"],
    "joblib": ["hydra/launcher=parallel"],
}
MOST = {"processes": 64, "basic": 64, "joblib": 64, "lightning": 16}  # points, unless all are asked for


def swept(points: int) -> tuple[str, str]:
    """Values of the learning rate and of the threshold, `points` pairs in all."""
    rates = [10 ** (-4 + 3 * i / 3) for i in range(4)]
    limits = [10 ** (-2 + 3 * i / (points // 4)) for i in range(points // 4)]
    return ",".join(f"{rate:.3g}" for rate in rates), ",".join(f"{limit:.3g}" for limit in limits)


class Command:
    """A command that is timed from outside, in a folder of its own.

    Args:
        arguments: of the interpreter.
        files: to be there before, by name.
        needs: a package that has to be installed.
    """

    def __init__(
        self, arguments: list[str], files: dict[str, str] | None = None, needs: str = ""
    ) -> None:
        self.arguments, self.files, self.needs = arguments, files or {}, needs
        self.processor: list[float] = []

    def __call__(self, _: int) -> float:
        if self.needs and find_spec(self.needs) is None:
            raise NotInstalled("not installed")
        with tempfile.TemporaryDirectory() as folder:
            for name, text in self.files.items():
                Path(folder, name).write_text(text)
            used = _processor_seconds()
            seconds = command_seconds(self.arguments, Path(folder))
        self.processor.append(_processor_seconds() - used)
        return seconds


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def contenders(model: str, points: int, amount: int, without: Sequence[str] = ()) -> dict[str, Command]:
    """The sweep by each of our launchers and, of the seed problem, by Lightning and Hydra.

    Args:
        model: one of MODELS.
        points: jobs, a multiple of 4.
        amount: epochs of each for the seed problem, steps for any other.
        without: those to leave out.
    """
    rates, limits = swept(points)
    sweep = [*MODELS[model], f"optimizer.lr={rates}", f"clip.max_norm={limits}"]
    if model == "mlp":
        sweep.append(f"trainer.max_epochs={amount}")
    else:
        sweep += ["trainer.max_epochs=null", f"trainer.max_steps={amount}"]
    needs = {"joblib": "hydra_plugins.hydra_joblib_launcher"}
    found = {
        name: Command([str(ROOT / "train.py"), "-m", *chosen, *sweep], needs=needs.get(name, ""))
        for name, chosen in LAUNCHERS.items()
    }
    if model == "mlp":
        files = {"main.py": LIGHTNING, "config.yaml": f"lr: 0.1\nmax_norm: 1.0\nepochs: {amount}\n"}
        arguments = ["main.py", "-m", f"lr={rates}", f"max_norm={limits}"]
        found["lightning"] = Command(arguments, files, needs="lightning")
    return {name: made for name, made in found.items() if name not in without}


def one(k: int, steps: int) -> Any:
    """The trainer of member k, each with a rate and a threshold of its own."""
    from models.mlp import MLP
    from trainer.clipping import ClipByNorm
    from trainer.loop import Trainer

    torch.manual_seed(0)
    model = MLP((10,), (1,))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3 * (1 + k % 8), fused=True)
    clip = ClipByNorm(0.1 * (k + 1))
    return Trainer(
        model, nn.MSELoss(), optimizer, clip=clip, max_epochs=None, max_steps=steps, device="cpu"
    )


def alone(steps: int) -> float:
    """Seconds of a run alone."""
    from trainer.data.random import random_regression

    return one(0, steps).fit(random_regression(val_samples=0))["seconds"]


def together(members: int, steps: int) -> float:
    """Seconds of so many runs as one."""
    from trainer.data.random import random_regression
    from trainer.ensemble import Run, Together

    source = random_regression(val_samples=0)
    group = Together([Run(one(k, steps), source) for k in range(members)])
    began = time.perf_counter()
    group.fit()
    return time.perf_counter() - began


def judged(
    points: int, limits: tuple[float | None, float | None], entries: Sequence[Entry]
) -> list[list[str]]:
    """A row for each bar that holds for this sweep."""
    by_name = {entry.name: entry for entry in entries}
    ours = by_name["vectorized"].seconds
    others = [by_name[name].seconds for name in ("basic", "joblib") if name in by_name]
    better = [min(values) for values in zip(*filter(None, others), strict=False)]
    bar = Bar(f"{points} points: better of basic and joblib / vectorized", 1.0)
    rows = [bar.row(median_ratio(better, ours))]
    for name, limit in zip(("basic", "lightning"), limits, strict=True):
        if limit is not None and (entry := by_name.get(name)):
            bar = Bar(f"{points} points: {name} / vectorized", limit)
            rows.append(bar.row(median_ratio(entry.seconds, ours), entry.absent))
    return rows


def whole(
    model: str, sizes: Sequence[int], amount: int, rounds: int, every: bool, without: Sequence[str]
) -> Part:
    """Whole sweeps: two columns for each size, seconds and processor seconds."""
    rows: dict[str, list[str]] = {}
    bars, crashed = [], False
    for points in sizes:
        commands = contenders(model, points, amount, without)
        entries = [Entry(name, command) for name, command in commands.items()]
        for entry in entries:
            entry.missing = "" if every or points <= MOST.get(entry.name, points) else "not run"
        interleave(entries, rounds if points <= 16 else 1)
        crashed |= any(entry.crash for entry in entries)
        for entry in entries:
            row = rows.setdefault(entry.name, [entry.name])
            if entry.seconds:
                used = spread(commands[entry.name].processor, ".1f")
                row += [spread(entry.seconds, ".1f"), used]
            else:
                row += [entry.absent, ""]
        limits = BARS.get((points, amount), (1.0, 1.0)) if model == "mlp" else (None, None)
        bars += judged(points, limits, entries)
    header = ["launcher", *(item for points in sizes for item in (f"{points} points, s", "processor s"))]
    each = f"{amount} {'epochs' if model == 'mlp' else 'steps'}"
    title = f"Sweeps over the {'MLP problem' if model == 'mlp' else model}, {each} a job, whole commands"
    return Part(title, header, list(rows.values()), bars, crashed)


def in_loop(members: int, rounds: int, steps: int = 300) -> Part:
    """Model-steps/s of so many runs as one, and of one alone."""
    torch.set_num_threads(1)
    entries = [Entry("one", alone, steps), Entry(f"{members} as one", partial(together, members), steps)]
    interleave(entries, rounds)
    rates = [entries[0].rates, [members * rate for rate in entries[1].rates]]
    pairs = zip(entries, rates, strict=True)
    rows = [[e.name, spread(each, ".0f") if each else e.absent] for e, each in pairs]
    bar = Bar(f"{members} as one / one", IN_LOOP)
    crashed = any(entry.crash for entry in entries)
    header = ("runs", "model-steps/s")
    return Part("In the loop", header, rows, [bar.row(median_ratio(rates[1], rates[0]))], crashed)


def measure(
    sizes: Sequence[int],
    epochs: int = 50,
    rounds: int = 3,
    members: int = 64,
    every: bool = False,
    without: Sequence[str] = ("processes",),
) -> Iterator[Part]:
    """The seed problem: whole commands, and the loop."""
    yield whole("mlp", sizes, epochs, rounds, every, without)
    if members:
        yield in_loop(members, rounds)


def main() -> int:
    """Measure and print; the status is 1 only when a contender crashed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="mlp", help="what is trained, on its data")
    parser.add_argument("--points", type=int, nargs="+", default=[16], help="jobs, multiples of 4")
    parser.add_argument("--epochs", type=int, default=50, help="epochs of each, with --model mlp")
    parser.add_argument("--steps", type=int, default=40, help="steps of each, with any other")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each; 1 beyond 16 points")
    parser.add_argument("--members", type=int, default=64, help="members in the loop; 0: none")
    parser.add_argument("--without", nargs="*", default=[], help="contenders to leave out")
    parser.add_argument("--all", action="store_true", help="run every command at every size")
    o = parser.parse_args()
    if o.model == "mlp":
        return shown(measure(o.points, o.epochs, o.rounds, o.members, o.all, o.without))
    return shown([whole(o.model, o.points, o.steps, o.rounds, o.all, o.without)])


if __name__ == "__main__":
    raise SystemExit(main())

"""Sweeps as whole commands, side by side: `python -m benchmarks.sweep`.

The seed problem (1000 random rows, an MLP 10-50-50-1, Adam, gradients clipped to a norm), `--points`
learning rates and thresholds, `--epochs` each. Timed from the shell, interpreter and imports included:

vectorized  python train.py -m hydra/launcher=vectorized experiment=seed_problem …
basic       the same with hydra/launcher=basic
lightning   a script of the usual kind: `@hydra.main`, -m, Lightning's Trainer with its logger and clip

The commands take turns; the ratios are formed round by round. Where one after another would take too
long, that command is left out and the table says so; ``--all`` runs it too. Beside them, in one process,
model-steps/s in the loop: `--members` runs trained as one against one alone.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.tables import Part, shown
from benchmarks.timing import Bar, Entry, NotInstalled, interleave, median_ratio, spread

ROOT = Path(__file__).resolve().parents[1]
# points, epochs: (at least so many times as fast as basic, as lightning)
BARS = {(16, 50): (2.0, 15.0), (64, 200): (6.0, None), (64, 50): (None, 40.0)}
IN_LOOP = 8.0
MOST = {"vectorized": 10**6, "basic": 64, "lightning": 16}  # points, unless all are asked for
LIGHTNING = """\
import logging
import warnings

import hydra
import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import TensorBoardLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

warnings.simplefilter("ignore")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Module(pl.LightningModule):
    def __init__(self, lr):
        super().__init__()
        self.lr = lr
        self.model = nn.Sequential(
            nn.Linear(10, 50), nn.ReLU(), nn.Linear(50, 50), nn.ReLU(), nn.Linear(50, 1)
        )

    def training_step(self, batch, index):
        loss = nn.functional.mse_loss(self.model(batch[0]), batch[1])
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, index):
        self.log("val_loss", nn.functional.mse_loss(self.model(batch[0]), batch[1]))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)


def loader(rows, shuffle):
    return DataLoader(TensorDataset(torch.randn(rows, 10), torch.randn(rows, 1)), 32, shuffle=shuffle)


@hydra.main(version_base="1.3", config_path=".", config_name="config")
def main(config):
    pl.seed_everything(0, verbose=False)
    folder = hydra.core.hydra_config.HydraConfig.get().runtime.output_dir
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=config.epochs,
        gradient_clip_val=config.max_norm,
        logger=TensorBoardLogger(folder),
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Module(config.lr), loader(1000, True), loader(200, False))
    return float(trainer.callback_metrics["val_loss"])


main()
"""


def swept(points: int) -> tuple[str, str]:
    """Values of the learning rate and of the threshold, `points` pairs in all."""
    rates = [10 ** (-4 + 3 * i / 3) for i in range(4)]
    limits = [10 ** (-2 + 3 * i / (points // 4)) for i in range(points // 4)]
    return ",".join(f"{rate:.3g}" for rate in rates), ",".join(f"{limit:.3g}" for limit in limits)


def taken(command: list[str], folder: Path) -> float:
    """Seconds a command takes, run in the folder."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    began = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:] or done.stdout[-2000:])
    return time.perf_counter() - began


def trimtab(launcher: str, points: int, epochs: int) -> Callable[[int], float]:
    """Our sweep by one of the launchers."""
    rates, limits = swept(points)
    command = [sys.executable, str(ROOT / "train.py"), "-m", f"hydra/launcher={launcher}"]
    command += ["experiment=seed_problem", f"trainer.max_epochs={epochs}"]
    command += [f"optimizer.lr={rates}", f"clip.max_norm={limits}"]

    def measure(_: int) -> float:
        with tempfile.TemporaryDirectory() as name:
            return taken(command, Path(name))

    return measure


def lightning(points: int, epochs: int) -> Callable[[int], float]:
    """The same sweep by Lightning and Hydra."""
    rates, limits = swept(points)

    def measure(_: int) -> float:
        if find_spec("lightning") is None:
            raise NotInstalled("not installed")
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "main.py").write_text(LIGHTNING)
            (folder / "config.yaml").write_text(f"lr: 0.1\nmax_norm: 1.0\nepochs: {epochs}\n")
            command = [sys.executable, "main.py", "-m", f"lr={rates}", f"max_norm={limits}"]
            return taken(command, folder)

    return measure


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


def whole(sizes: Sequence[int], epochs: int, rounds: int, every: bool) -> Part:
    """Seconds of whole sweeps, a column for each size."""
    rows, bars, crashed = [[name] for name in MOST], [], False
    for points in sizes:
        work = {
            "vectorized": trimtab("vectorized", points, epochs),
            "basic": trimtab("basic", points, epochs),
            "lightning": lightning(points, epochs),
        }
        entries = [Entry(name, work[name]) for name in MOST]
        for entry in entries:
            entry.missing = "" if every or points <= MOST[entry.name] else "not run"
        interleave(entries, rounds if points <= 16 else 1)
        crashed |= any(entry.crash for entry in entries)
        for row, entry in zip(rows, entries, strict=True):
            row.append(spread(entry.seconds, ".1f") if entry.seconds else entry.absent)
        limits = BARS.get((points, epochs), (1.0, 1.0))
        for entry, limit in zip(entries[1:], limits, strict=True):
            bar = Bar(f"{points} points: {entry.name} / vectorized", limit or 1.0)
            bars.append(bar.row(median_ratio(entry.seconds, entries[0].seconds), entry.absent))
    header = ["launcher", *(f"{points} points" for points in sizes)]
    return Part(f"Sweeps over the MLP problem, {epochs} epochs, seconds", header, rows, bars, crashed)


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
    sizes: Sequence[int], epochs: int = 50, rounds: int = 3, members: int = 64, every: bool = False
) -> Iterator[Part]:
    """Whole commands, and the loop."""
    yield whole(sizes, epochs, rounds, every)
    yield in_loop(members, rounds)


def main() -> int:
    """Measure and print; the status is 1 only when a contender crashed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, nargs="+", default=[16], help="jobs, multiples of 4")
    parser.add_argument("--epochs", type=int, default=50, help="epochs of each")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each; 1 beyond 16 points")
    parser.add_argument("--members", type=int, default=64, help="runs at once, in the loop")
    parser.add_argument("--all", action="store_true", help="run every command at every size")
    o = parser.parse_args()
    return shown(measure(o.points, o.epochs, o.rounds, o.members, o.all))


if __name__ == "__main__":
    raise SystemExit(main())

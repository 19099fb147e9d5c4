"""Sweeps as whole commands, side by side: `python -m benchmarks.sweep`.

The seed problem (1000 random rows, an MLP 10-50-50-1, Adam, gradients clipped to a norm), `--points`
learning rates and thresholds, `--epochs` each. Timed from the shell, interpreter and imports included:

vectorized  python train.py -m hydra/launcher=vectorized experiment=seed_problem …
processes   the same with hydra.launcher.strategy=processes: each job by itself, in a process of its own
basic       the same with hydra/launcher=basic: one job after another
joblib      the same with hydra/launcher=parallel, where Hydra's joblib launcher is installed
lightning   a script of the usual kind: `@hydra.main`, -m, Lightning's Trainer with its logger and clip

The commands take turns; the ratios are formed round by round. Processor seconds of a command and all its
processes stand beside the wall's: they tell more on a machine that has other work. Beside them, in one
process, model-steps/s in the loop: `--members` runs trained as one against one alone.

`--model unet` (or another of the shipped ones) sweeps that one with its own data instead, `--steps`
each, against the bar that holds for every model: never slower than the better of basic and joblib.
"""

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch import nn

from benchmarks.timing import Bar, Entry, NotInstalled, interleave, median_ratio, spread, table

ROOT = Path(__file__).resolve().parents[1]
# points, epochs: (at least so many times as fast as basic, as lightning)
BARS = {(16, 50): (2.0, 15.0), (64, 200): (6.0, None), (64, 50): (None, 40.0)}
IN_LOOP = Bar("in the loop, members / one", 8.0)
NEVER_SLOWER = Bar("better of basic and joblib / vectorized", 1.0)
MODELS = {  # each with data of its kind; without schedules that want a thousand steps
    "mlp": ["experiment=seed_problem"],
    "unet": [],
    "cnn": ["experiment=cnn_classifier"],
    "rnn": ["experiment=rnn_text"],
    "transformer": ["experiment=transformer_text", "scheduler=none"],
}
LAUNCHERS = {
    "vectorized": ["hydra/launcher=vectorized"],
    "processes": ["hydra/launcher=vectorized", "hydra.launcher.strategy=processes"],
    "basic": ["hydra/launcher=basic"],
    "joblib": ["hydra/launcher=parallel"],
}
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
        if self.needs and importlib.util.find_spec(self.needs) is None:
            raise NotInstalled(f"{self.needs} is not installed")
        with tempfile.TemporaryDirectory() as folder:
            for name, text in self.files.items():
                Path(folder, name).write_text(text)
            environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
            began, used = time.perf_counter(), _processor_seconds()
            done = subprocess.run(
                [sys.executable, *self.arguments],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
            )
            seconds = time.perf_counter() - began
            if done.returncode:
                raise RuntimeError(done.stderr[-2000:] or done.stdout[-2000:])
        self.processor.append(_processor_seconds() - used)
        return seconds


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def contenders(options: argparse.Namespace) -> dict[str, Command]:
    """The sweep by each of our launchers and, of the seed problem, by Lightning and Hydra."""
    rates, limits = swept(options.points)
    sweep = [*MODELS[options.model], f"optimizer.lr={rates}", f"clip.max_norm={limits}"]
    if options.model == "mlp":
        sweep.append(f"trainer.max_epochs={options.epochs}")
    else:
        sweep += ["trainer.max_epochs=null", f"trainer.max_steps={options.steps}"]
    needs = {"joblib": "hydra_plugins.hydra_joblib_launcher"}
    found = {
        name: Command([str(ROOT / "train.py"), "-m", *chosen, *sweep], needs=needs.get(name, ""))
        for name, chosen in LAUNCHERS.items()
    }
    if options.model == "mlp":
        files = {
            "main.py": LIGHTNING,
            "config.yaml": f"lr: 0.1\nmax_norm: 1.0\nepochs: {options.epochs}\n",
        }
        arguments = ["main.py", "-m", f"lr={rates}", f"max_norm={limits}"]
        found["lightning"] = Command(arguments, files, needs="lightning")
    return {name: command for name, command in found.items() if name not in options.without}


def in_loop(members: int, steps: int = 300) -> float:
    """Model-steps/s of so many runs as one, over those of one alone; the better of three turns each."""
    from models.mlp import MLP
    from trainer.clipping import ClipByNorm
    from trainer.data.random import random_regression
    from trainer.ensemble import Run, Together
    from trainer.loop import Trainer

    source = random_regression(val_samples=0)

    def one(k: int) -> Trainer:
        torch.manual_seed(0)
        model = MLP((10,), (1,))
        optimizer = torch.optim.Adam(model.parameters(), 1e-3 * (1 + k % 8), fused=True)
        clip = ClipByNorm(0.1 * (k + 1))
        return Trainer(
            model, nn.MSELoss(), optimizer, clip=clip, max_epochs=None, max_steps=steps, device="cpu"
        )

    rates: dict[str, list[float]] = {"alone": [], "together": []}
    for _ in range(3):
        alone = one(0)
        rates["alone"].append(alone.fit(source)["steps_per_second"])
        runs = [Run(one(k), source) for k in range(members)]
        group = Together(runs)
        began = time.perf_counter()
        group.fit()
        rates["together"].append(members * steps / (time.perf_counter() - began))
    return max(rates["together"]) / max(rates["alone"])


def judged(
    options: argparse.Namespace, seconds: dict[str, list[float]]
) -> list[tuple[Bar, float | None]]:
    """The bars that hold for this sweep, with what was measured."""
    ours = seconds["vectorized"]
    others = [seconds[name] for name in ("basic", "joblib") if seconds.get(name)]
    better = [min(values) for values in zip(*others, strict=False)]
    bars = [(NEVER_SLOWER, median_ratio(better, ours))]
    if options.model == "mlp":
        limits = BARS.get((options.points, options.epochs), (None, None))
        for name, limit in zip(("basic", "lightning"), limits, strict=True):
            if limit is not None:
                bar = Bar(f"{name} / vectorized", limit)
                bars.append((bar, median_ratio(seconds.get(name, []), ours)))
        if options.members:
            bars.append((IN_LOOP, in_loop(options.members)))
    return bars


def main() -> int:
    """Measure and print; the status is 1 only when a contender crashed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="mlp", help="what is trained, on its data")
    parser.add_argument("--points", type=int, default=16, help="jobs in the sweep, a multiple of 4")
    parser.add_argument("--epochs", type=int, default=50, help="epochs of each, with --model mlp")
    parser.add_argument("--steps", type=int, default=40, help="steps of each, with any other")
    parser.add_argument("--rounds", type=int, default=3, help="turns for each command")
    parser.add_argument(
        "--members", type=int, default=64, help="runs at once, in the loop; 0: leave out"
    )
    parser.add_argument("--without", nargs="*", default=[], help="contenders to leave out")
    parser.add_argument("--json", type=Path, help="file to write the figures into")
    options = parser.parse_args()
    commands = contenders(options)
    entries = [Entry(name, command) for name, command in commands.items()]
    interleave(entries, options.rounds)
    each = f"{options.epochs} epochs" if options.model == "mlp" else f"{options.steps} steps"
    seconds = {entry.name: entry.seconds for entry in entries}
    rows = []
    for entry in entries:
        if not entry.seconds:
            rows.append([entry.name, entry.missing or entry.crash, "", ""])
            continue
        ratio = median_ratio(entry.seconds, seconds.get("vectorized", []))
        processor = spread(commands[entry.name].processor, ".1f")
        compared = "" if ratio is None else f"{ratio:.2f}x"
        rows.append([entry.name, spread(entry.seconds, ".1f"), compared, processor])
    header = [f"{options.points} x {each}", "s", "/ vectorized", "processor s"]
    print(table(header, rows))
    figures: dict = {"seconds": seconds, "bars": {}}
    if "vectorized" in seconds:
        bars = judged(options, seconds)
        print("\n" + table(["bar", "wanted", "measured", ""], [bar.row(value) for bar, value in bars]))
        figures["bars"] = {bar.label: bar.figures(value) for bar, value in bars}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return int(any(entry.crash for entry in entries))


if __name__ == "__main__":
    raise SystemExit(main())

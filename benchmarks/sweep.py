"""Sweeps as whole commands, side by side: `python -m benchmarks.sweep`.

The seed problem (1000 random rows, an MLP 10-50-50-1, Adam, gradients clipped to a norm), `--points`
learning rates and thresholds, `--epochs` each. Timed from the shell, interpreter and imports included:

vectorized  python train.py -m hydra/launcher=vectorized experiment=seed_problem …
basic       the same with hydra/launcher=basic
lightning   a script of the usual kind: `@hydra.main`, -m, Lightning's Trainer with its logger and clip

The commands take turns; the ratios are formed round by round. Beside them, in one process, model-steps/s
in the loop: `--members` runs trained as one against one alone.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from benchmarks.timing import Bar, Entry, NotInstalled, interleave, median_ratio, spread, table

ROOT = Path(__file__).resolve().parents[1]
# points, epochs: (at least so many times as fast as basic, as lightning)
BARS = {(16, 50): (2.0, 15.0), (64, 200): (6.0, None), (64, 50): (None, 40.0)}
IN_LOOP = Bar("in the loop, members / one", 8.0)
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


def timed(command: list[str], folder: Path) -> float:
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
            return timed(command, Path(name))

    return measure


def lightning(points: int, epochs: int) -> Callable[[int], float]:
    """The same sweep by Lightning and Hydra."""
    rates, limits = swept(points)

    def measure(_: int) -> float:
        try:
            import lightning  # noqa: F401
        except ImportError as error:
            raise NotInstalled("lightning is not installed") from error
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "main.py").write_text(LIGHTNING)
            (folder / "config.yaml").write_text(f"lr: 0.1\nmax_norm: 1.0\nepochs: {epochs}\n")
            command = [sys.executable, "main.py", "-m", f"lr={rates}", f"max_norm={limits}"]
            return timed(command, folder)

    return measure


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


def main() -> int:
    """Measure and print; the status is 1 only when a contender crashed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=16, help="jobs in the sweep, a multiple of 4")
    parser.add_argument("--epochs", type=int, default=50, help="epochs of each")
    parser.add_argument("--rounds", type=int, default=3, help="turns for each command")
    parser.add_argument("--members", type=int, default=64, help="runs at once, in the loop")
    parser.add_argument("--without", nargs="*", default=[], help="contenders to leave out")
    parser.add_argument("--json", type=Path, help="file to write the figures into")
    options = parser.parse_args()
    size = (options.points, options.epochs)
    contenders = {
        "vectorized": trimtab("vectorized", *size),
        "basic": trimtab("basic", *size),
        "lightning": lightning(*size),
    }
    entries = [Entry(name, work) for name, work in contenders.items() if name not in options.without]
    interleave(entries, options.rounds)
    rows = [[e.name, spread(e.seconds, ".1f") if e.seconds else e.missing or e.crash] for e in entries]
    print(table(["contender", f"s for {size[0]} x {size[1]} epochs"], rows))
    seconds = {entry.name: entry.seconds for entry in entries}
    figures: dict = {"seconds": seconds, "bars": {}}
    bars = [
        (Bar(f"{name} / vectorized", limit or 1.0), median_ratio(seconds[name], seconds["vectorized"]))
        for name, limit in zip(("basic", "lightning"), BARS.get(size, (None, None)), strict=True)
        if name in seconds
    ]
    bars.append((IN_LOOP, in_loop(options.members)))
    print("\n" + table(["bar", "wanted", "measured", ""], [bar.row(value) for bar, value in bars]))
    figures["bars"] = {bar.label: bar.figures(value) for bar, value in bars}
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return int(any(entry.crash for entry in entries))


if __name__ == "__main__":
    raise SystemExit(main())

"""Step throughput on a small regression: `python -m benchmarks.step`.

The job: 1000 rows of 10 standard normal inputs and 1 target, batches of 32 (32 steps an epoch,
the last with 8 rows), an MLP 10-50-50-1 with ReLU, mean squared error, Adam at 1e-3, gradients
clipped to norm 1.0, all on the CPU. The arithmetic is so small that what is timed is the loop
around it. Four contenders train it:

plain      the loop people copy: DataLoader, default Adam, `loss.item()` kept for each step
tuned      the loop tuned by hand: sliced tensors, fused Adam, foreach clipping, no record at all
lightning  Lightning's Trainer, clipping on, its TensorBoard logger at its default interval
trimtab    ours through the public API, with its full record: metrics.jsonl and TensorBoard

Contenders take turns in one process, each for `--seconds` a round, after a warm-up that also
chooses their step counts. Each turn trains a fresh model. For the first three, the clock covers
the steps alone; for trimtab it covers the whole of `fit`, so opening and closing its record and
its last checkpoint count against it. Bars are medians of the ratios formed round by round.

All four get the same number of threads, one unless `--threads` says otherwise: matrices this
small gain nothing from a second, and on busy cores its barriers cost milliseconds a step.
"""

import argparse
import json
import logging
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.timing import (
    Bar,
    Entry,
    NotInstalled,
    calibrate,
    interleave,
    median_ratio,
    spread,
    summary,
    table,
)

SAMPLES, FEATURES, HIDDEN, BATCH = 1000, 10, 50, 32
RATE, NORM = 1e-3, 1.0
BARS = {
    "plain": Bar("trimtab / plain", 2.0),
    "tuned": Bar("trimtab / tuned", 0.9),
    "lightning": Bar("trimtab / lightning", 5.0),
}


def tensors() -> tuple[Tensor, Tensor]:
    """The data, the same on every call."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(SAMPLES, FEATURES, generator=generator)
    return inputs, torch.randn(SAMPLES, 1, generator=generator)


def network() -> nn.Sequential:
    """The model, with the same first weights on every call."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(FEATURES, HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, HIDDEN),
        nn.ReLU(),
        nn.Linear(HIDDEN, 1),
    )


def shuffled_loader() -> DataLoader:
    """The usual loader over the data."""
    return DataLoader(TensorDataset(*tensors()), shuffle=True, batch_size=BATCH)


def endless(loader: DataLoader) -> Iterator[list[Tensor]]:
    """Epoch after epoch of a loader's batches."""
    while True:
        yield from loader


def plain(steps: int) -> float:
    """Seconds for `steps` of the loop as people copy it."""
    loader, model, criterion = shuffled_loader(), network(), nn.MSELoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    losses = []
    start = time.perf_counter()
    for _, (inputs, targets) in zip(range(steps), endless(loader), strict=False):
        optimizer.zero_grad()
        loss = criterion(model(inputs), targets)
        loss.backward()
        clip_grad_norm_(model.parameters(), NORM)
        optimizer.step()
        losses.append(loss.item())
    return time.perf_counter() - start


def sliced_batches(inputs: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches without end: one permutation an epoch, then plain slices."""
    while True:
        order = torch.randperm(len(inputs))
        mixed_inputs, mixed_targets = inputs[order], targets[order]
        for low in range(0, len(order), BATCH):
            yield mixed_inputs[low : low + BATCH], mixed_targets[low : low + BATCH]


def tuned(steps: int) -> float:
    """Seconds for `steps` of a loop tuned by hand, which records nothing."""
    model, criterion = network(), nn.MSELoss()
    parameters = list(model.parameters())
    optimizer = torch.optim.Adam(parameters, lr=RATE, fused=True)
    batches = sliced_batches(*tensors())
    start = time.perf_counter()
    for _, (inputs, targets) in zip(range(steps), batches, strict=False):
        optimizer.zero_grad(set_to_none=True)
        criterion(model(inputs), targets).backward()
        clip_grad_norm_(parameters, NORM, foreach=True)
        optimizer.step()
    return time.perf_counter() - start


def lightning_parts(pl) -> tuple:
    """A Lightning module for the job, and a callback holding the times training began and ended."""

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.criterion = network(), nn.MSELoss()

        def training_step(self, batch: list[Tensor], index: int) -> Tensor:
            inputs, targets = batch
            loss = self.criterion(self.model(inputs), targets)
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=RATE)

    class Clock(pl.Callback):
        def on_train_start(self, *_) -> None:
            self.began = time.perf_counter()

        def on_train_end(self, *_) -> None:
            self.ended = time.perf_counter()

    return Module(), Clock()


def lightning(steps: int) -> float:
    """Seconds for `steps` under Lightning, from its on_train_start to its on_train_end."""
    try:
        import lightning.pytorch as pl
        from lightning.pytorch.loggers import TensorBoardLogger
    except ImportError as error:
        raise NotInstalled("lightning is not installed") from error
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    module, clock = lightning_parts(pl)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=1,
            max_steps=steps,
            max_epochs=-1,
            gradient_clip_val=NORM,
            logger=TensorBoardLogger(folder),
            callbacks=[clock],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, shuffled_loader())
    return clock.ended - clock.began


def trimtab(steps: int) -> float:
    """Seconds for `steps` under Trimtab: all of `fit`, with the full record."""
    from models.mlp import MLP
    from trainer.clipping import ClipByNorm
    from trainer.data.random import random_regression
    from trainer.loop import Trainer
    from trainer.tensorboard import TensorBoard

    torch.manual_seed(0)
    model = MLP((FEATURES,), (1,), hidden=(HIDDEN, HIDDEN))
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=True)
    # No contender validates.
    data = random_regression(SAMPLES, FEATURES, 1, val_samples=0, batch_size=BATCH)
    trainer = Trainer(
        model,
        nn.MSELoss(),
        optimizer,
        clip=ClipByNorm(NORM),
        max_epochs=None,
        max_steps=steps,
        device="cpu",
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.perf_counter()
        view = TensorBoard(folder)
        outcome = trainer.fit(data, folder, [view])
        view.close()
        taken = time.perf_counter() - start
        check_record(folder, outcome, steps)
    return taken


def check_record(folder: Path, outcome: dict, steps: int) -> None:
    """Refuses a measurement whose run ended early or left no record."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    events = sum(path.stat().st_size for path in folder.glob("events.out.tfevents.*"))
    if outcome["status"] != "completed" or outcome["steps"] != steps:
        raise RuntimeError(f"trimtab stopped: {outcome['status']}, {outcome['steps']} steps")
    if not lines or json.loads(lines[-1])["step"] != steps or not events:
        raise RuntimeError("trimtab left an incomplete record")


def with_threads(contender: Callable[[int], float], threads: int) -> Callable[[int], float]:
    """A contender that always starts from the given thread count, whatever the last one set."""

    def measure(steps: int) -> float:
        torch.set_num_threads(threads)
        return contender(steps)

    return measure


def contender_row(entry: Entry, tuned_rates: list[float]) -> list[str]:
    """The table row of one contender."""
    if not entry.rates:
        return [entry.name, entry.missing or f"crashed: {entry.crash}"[:60], "-", "-"]
    ratio = median_ratio(entry.rates, tuned_rates)
    micros = [1e6 / rate for rate in entry.rates]
    shown = "-" if ratio is None else f"{ratio:.3f}x"
    return [entry.name, spread(entry.rates, ".0f"), spread(micros, ".0f"), shown]


def report(entries: list[Entry]) -> dict:
    """Print both tables and return the figures for the JSON file."""
    rates = {entry.name: entry.rates for entry in entries}
    rows = [contender_row(entry, rates["tuned"]) for entry in entries]
    print(table(["contender", "steps/s", "µs/step", "to tuned"], rows))
    measured = {name: median_ratio(rates["trimtab"], rates[name]) for name in BARS}
    bar_rows = [bar.row(measured[name]) for name, bar in BARS.items()]
    print("\n" + table(["bar", "wanted", "measured", ""], bar_rows))
    return {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "steps_per_second": {name: summary(values) for name, values in rates.items() if values},
        "to_tuned": {name: median_ratio(values, rates["tuned"]) for name, values in rates.items()},
        "bars": {bar.label: bar.figures(measured[name]) for name, bar in BARS.items()},
        "missing": {entry.name: entry.missing for entry in entries if entry.missing},
        "crashed": {entry.name: entry.crash for entry in entries if entry.crash},
    }


def main() -> int:
    """Measure and print; the status is 1 only when a contender crashed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="turns for each contender")
    parser.add_argument("--seconds", type=float, default=1.2, help="length of one turn")
    parser.add_argument("--threads", type=int, default=1, help="torch threads for every contender")
    parser.add_argument("--json", type=Path, help="file to write the figures into")
    options = parser.parse_args()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    entries = [
        Entry(contender.__name__, with_threads(contender, options.threads))
        for contender in (plain, tuned, lightning, trimtab)
    ]
    for entry in entries:
        calibrate(entry, options.seconds)
        if entry.missing:
            print(f"{entry.name} skipped: {entry.missing}")
    interleave(entries, options.rounds)
    figures = report(entries)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return int(any(entry.crash for entry in entries))


if __name__ == "__main__":
    raise SystemExit(main())

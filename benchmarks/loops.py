"""Three ways to train a job of `benchmarks.jobs`; each returns the seconds that so many steps took."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.utils.data import DataLoader

from benchmarks.jobs import EVERY, NORM, RATE, Job


def endless(loader: DataLoader) -> Iterator[list[Tensor]]:
    """Epoch after epoch of a loader's batches."""
    while True:
        yield from loader


def plain(job: Job, steps: int) -> float:
    """The loop as people copy it: DataLoader, default Adam, ``loss.item()`` kept for each step."""
    loader, model = job.loader(), job.network()
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
    losses = []
    start = time.perf_counter()
    for inputs, targets in islice(endless(loader), steps):
        optimizer.zero_grad()
        loss = job.criterion(model(job.prepared(inputs)), targets)
        loss.backward()
        clip_grad_norm_(model.parameters(), NORM)
        optimizer.step()
        losses.append(loss.item())
    return time.perf_counter() - start


def tuned(job: Job, steps: int) -> float:
    """A loop tuned by hand: sliced tensors, fused Adam, foreach clipping, no record at all."""
    model, batches = job.network(), job.slices()
    parameters = list(model.parameters())
    optimizer = torch.optim.Adam(parameters, lr=RATE, fused=True)
    start = time.perf_counter()
    for inputs, targets in islice(batches, steps):
        optimizer.zero_grad(set_to_none=True)
        job.criterion(model(inputs), targets).backward()
        clip_grad_norm_(parameters, NORM, foreach=True)
        optimizer.step()
    return time.perf_counter() - start


def trimtab(job: Job, steps: int) -> float:
    """Ours as `train.py` makes it, with its guard and its full record: metrics.jsonl and TensorBoard."""
    from trainer.clipping import ClipByNorm
    from trainer.loop import Trainer
    from trainer.shortcuts import leave_out_compiler
    from trainer.tensorboard import TensorBoard

    leave_out_compiler()
    model, data = job.network(), job.data()
    optimizer = torch.optim.Adam(model.parameters(), lr=RATE, fused=True)
    limits = {"max_epochs": None, "max_steps": steps, "log_every": EVERY}
    trainer = Trainer(model, job.criterion, optimizer, clip=ClipByNorm(NORM), device="cpu", **limits)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        view = TensorBoard(folder)
        outcome = trainer.fit(data, folder, [view])
        view.close()
        check_record(folder, outcome, steps)
    return outcome["seconds"]


def check_record(folder: Path, outcome: dict, steps: int) -> None:
    """Refuses a measurement whose run ended early or left no record."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    events = sum(path.stat().st_size for path in folder.glob("events.out.tfevents.*"))
    if outcome["status"] != "completed" or outcome["steps"] != steps:
        raise RuntimeError(f"trimtab stopped: {outcome['status']}, {outcome['steps']} steps")
    if not lines or json.loads(lines[-1])["step"] != steps or not events:
        raise RuntimeError("trimtab left an incomplete record")

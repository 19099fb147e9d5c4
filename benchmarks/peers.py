"""The same jobs under other libraries, each used as its own documentation does.

All of them get fused Adam, a DataLoader, and their own TensorBoard logger, which takes the loss every
`EVERY` steps, and the gradient norm where their clip returns it. The clock covers the steps alone: not
the import, not the set-up, no checkpoint.
"""

from __future__ import annotations

import logging
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from benchmarks.jobs import EVERY, NORM, RATE, Job
from benchmarks.loops import endless
from benchmarks.timing import NotInstalled


@contextmanager
def of(package: str) -> Iterator[str]:
    """A folder for a logger, if the package is there; its warnings are not for us."""
    if find_spec(package) is None:
        raise NotInstalled("not installed")
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield folder


def adam(model: torch.nn.Module) -> torch.optim.Adam:
    """The optimizer of all of them."""
    return torch.optim.Adam(model.parameters(), lr=RATE, fused=True)


def lightning(job: Job, steps: int) -> float:
    """Lightning's Trainer, from its on_train_start to its on_train_end."""
    with of("lightning") as folder:
        import lightning.pytorch as pl
        from lightning.pytorch.loggers import TensorBoardLogger

        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        module, clock = lightning_parts(pl, job)
        trainer = pl.Trainer(
            accelerator="cpu",
            devices=1,
            max_steps=steps,
            max_epochs=-1,
            gradient_clip_val=NORM,
            log_every_n_steps=EVERY,
            logger=TensorBoardLogger(folder),
            callbacks=[clock],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, job.loader())
    return clock.ended - clock.began


def lightning_parts(pl: Any, job: Job) -> tuple:
    """A Lightning module for the job, and a callback holding the times training began and ended."""

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.criterion = job.network(), job.criterion

        def training_step(self, batch: list[Tensor], index: int) -> Tensor:
            inputs, targets = batch
            loss = self.criterion(self.model(job.prepared(inputs)), targets)
            self.log("train/loss", loss)
            return loss

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return adam(self)

    class Clock(pl.Callback):
        def on_train_start(self, *_) -> None:
            self.began = time.perf_counter()

        def on_train_end(self, *_) -> None:
            self.ended = time.perf_counter()

    return Module(), Clock()


def fabric(job: Job, steps: int) -> float:
    """Lightning Fabric, around a loop of one's own."""
    with of("lightning") as folder:
        from lightning.fabric import Fabric
        from lightning.fabric.loggers import TensorBoardLogger

        fabric = Fabric(accelerator="cpu", devices=1, loggers=TensorBoardLogger(folder))
        network = job.network()
        model, optimizer = fabric.setup(network, adam(network))
        loader = fabric.setup_dataloaders(job.loader())
        start = time.perf_counter()
        for step, (inputs, targets) in enumerate(islice(endless(loader), steps), 1):
            optimizer.zero_grad()
            loss = job.criterion(model(job.prepared(inputs)), targets)
            fabric.backward(loss)
            norm = fabric.clip_gradients(model, optimizer, max_norm=NORM)
            optimizer.step()
            if step % EVERY == 0:
                fabric.log_dict({"train/loss": loss, "grad/norm": norm}, step)
        return time.perf_counter() - start


def accelerate(job: Job, steps: int) -> float:
    """Hugging Face Accelerate, around a loop of one's own."""
    with of("accelerate") as folder:
        from accelerate import Accelerator

        accelerator = Accelerator(cpu=True, log_with="tensorboard", project_dir=folder)
        accelerator.init_trackers("run")
        network = job.network()
        model, optimizer, loader = accelerator.prepare(network, adam(network), job.loader())
        start = time.perf_counter()
        for step, (inputs, targets) in enumerate(islice(endless(loader), steps), 1):
            optimizer.zero_grad()
            loss = job.criterion(model(job.prepared(inputs)), targets)
            accelerator.backward(loss)
            norm = accelerator.clip_grad_norm_(model.parameters(), NORM)
            optimizer.step()
            if step % EVERY == 0:
                accelerator.log({"train/loss": loss.item(), "grad/norm": norm.item()}, step)
        taken = time.perf_counter() - start
        accelerator.end_training()
    return taken


def ignite(job: Job, steps: int) -> float:
    """PyTorch Ignite: an engine around one's own step."""
    with of("ignite") as folder:
        from ignite.engine import Engine, Events
        from ignite.handlers.tensorboard_logger import TensorboardLogger

        model = job.network()
        optimizer = adam(model)

        def update(engine: Engine, batch: list[Tensor]) -> float:
            inputs, targets = batch
            optimizer.zero_grad()
            loss = job.criterion(model(job.prepared(inputs)), targets)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), NORM)
            optimizer.step()
            return loss.item()

        engine, loader = Engine(update), job.loader()
        logger = TensorboardLogger(log_dir=folder)
        every = Events.ITERATION_COMPLETED(every=EVERY)
        named = {"tag": "train", "output_transform": lambda loss: {"loss": loss}}
        logger.attach_output_handler(engine, every, **named)
        start = time.perf_counter()
        engine.run(loader, max_iters=steps)
        taken = time.perf_counter() - start
        logger.close()
    return taken

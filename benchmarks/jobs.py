"""The jobs that every contender trains: model, loss and data are the same objects for all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from trainer.data.tensors import Data

RATE, NORM, EVERY = 1e-3, 1.0, 20  # of Adam; of the clip; steps between two lines of the record
SAMPLES, FEATURES, HIDDEN = 1000, 10, 50
SIGMA = 0.3


@dataclass(frozen=True)
class Job:
    """Something to train.

    Attributes:
        title: for people.
        model: makes it.
        criterion: the loss.
        data: as Trimtab has it, nothing held out.
        samples: inputs and targets as others hold them; cached.
        batch: samples in one.
        prepared: what becomes of the inputs before each use.
    """

    title: str
    model: Callable[[], nn.Module]
    criterion: nn.Module
    data: Callable[[], Data]
    samples: Callable[[], tuple[Tensor, Tensor]]
    batch: int = 32
    prepared: Callable[[Tensor], Tensor] = lambda inputs: inputs

    def network(self) -> nn.Module:
        """The model, with the same first weights on every call."""
        torch.manual_seed(0)
        return self.model()

    def loader(self) -> DataLoader:
        """The usual loader over the samples."""
        return DataLoader(TensorDataset(*self.samples()), shuffle=True, batch_size=self.batch)

    def slices(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches without end: one permutation an epoch, then plain slices."""
        inputs, targets = self.samples()
        while True:
            order = torch.randperm(len(inputs))
            mixed_inputs, mixed_targets = self.prepared(inputs[order]), targets[order]
            for low in range(0, len(order), self.batch):
                yield mixed_inputs[low : low + self.batch], mixed_targets[low : low + self.batch]


def mlp() -> nn.Module:
    """10-50-50-1 with ReLU."""
    from models.mlp import MLP

    return MLP((FEATURES,), (1,), hidden=(HIDDEN, HIDDEN))


def rows() -> Data:
    """1000 rows of 10 standard normal inputs and 1 target."""
    from trainer.data.random import random_regression

    return random_regression(SAMPLES, FEATURES, 1, val_samples=0, batch_size=32)


@cache
def some_rows() -> tuple[Tensor, Tensor]:
    """As many rows of the same kind."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(SAMPLES, FEATURES, generator=generator)
    return inputs, torch.randn(SAMPLES, 1, generator=generator)


def unet() -> nn.Module:
    """That of ``python train.py``."""
    from models.unet import UNet

    return UNet((1, 8, 8), (1, 8, 8))


def digits() -> Data:
    """Those of ``python train.py``, without the validation."""
    from trainer.data.digits import digits_denoise

    data = digits_denoise(sigma=SIGMA)
    data.val, data.validates = (data.val[0][:0], data.val[1][:0]), False
    return data


@cache
def clean_digits() -> tuple[Tensor, Tensor]:
    """The training images, twice; the noise comes on top."""
    from trainer.data.digits import digits_denoise

    images, _ = digits_denoise().train
    return images, images


def noisy(images: Tensor) -> Tensor:
    """With fresh noise."""
    return (images + SIGMA * torch.randn_like(images)).clamp(0, 1)


@cache
def characters() -> Data:
    """Windows of 128 characters of Python's help topics, without the validation."""
    from trainer.data.text import text

    data = text()
    data.split, data.validates = len(data.tokens), False  # where the validation begins
    return data


def lstm() -> nn.Module:
    """One layer of 128, for these characters."""
    from models.rnn import RNN

    data = characters()
    return RNN(data.input_shape, data.output_shape)


@cache
def windows() -> tuple[Tensor, Tensor]:
    """The same text cut once: (N, T) characters, and those that follow each."""
    data = characters()
    (length,), count = data.input_shape, data.windows
    cut = data.tokens[: count * length + 1]
    return cut[:-1].view(count, length), cut[1:].view(count, length)


JOBS = {
    "mlp": Job("MLP problem", mlp, nn.MSELoss(), rows, some_rows),
    "unet": Job("digits U-Net", unet, nn.MSELoss(), digits, clean_digits, prepared=noisy),
    "lstm": Job("LSTM text", lstm, nn.CrossEntropyLoss(), characters, windows),
}

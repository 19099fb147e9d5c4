"""A look at a model in training mode that it does not remember."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from trainer.rng import rng_state, set_rng_state


@contextmanager
def untouched(*parts: object) -> Iterator[None]:
    """Training mode for those parts that are modules; afterwards their modes, their buffers (the
    statistics of BatchNorm, say) and the random generators are what they were."""
    models = [part for part in parts if isinstance(part, nn.Module)]
    modes = [(module, module.training) for model in models for module in model.modules()]
    buffers = [(buffer, buffer.clone()) for model in models for buffer in model.buffers()]
    tensors = [tensor for model in models for tensor in (*model.parameters(), *model.buffers())]
    device = tensors[0].device if tensors else torch.device("cpu")
    generators = rng_state(device)
    try:
        for model in models:
            model.train()
        yield
    finally:
        set_rng_state(device, generators)
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for buffer, saved in buffers:
                buffer.copy_(saved)

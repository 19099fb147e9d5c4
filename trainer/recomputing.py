"""Activation checkpointing: memory for time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from math import isqrt
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def recompute(model: nn.Module) -> None:
    """Lets the blocks of a model keep their inputs only, and compute what is between again on the way
    back (Chen et al. 2016, arXiv 1604.06174): one more forward pass for the memory of one block.

    A block is a module in a `torch.nn.ModuleList`; a chain of n modules in a `torch.nn.Sequential` is
    cut into blocks of about √n. Blocks inside blocks count as part of these. Results stay to the bit the
    same: dropout draws the same again, and buffers are written once. Without gradients, as in
    validation, nothing is kept anyway and nothing changes.

    Args:
        model: changed in place; names, parameters and buffers stay.

    Raises:
        ValueError: if the model has no such block.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Dropout(), nn.Linear(3, 1))
        >>> recompute(model)
        >>> [name for name, _ in model.named_parameters()]
        ['0.weight', '0.bias', '3.weight', '3.bias']
    """
    if not _replaced(model):
        raise ValueError(
            f"checkpoint_activations must be false for {type(model).__name__}, which has no blocks: "
            "no nn.ModuleList and no nn.Sequential with parameters"
        )


def recomputes(model: nn.Module) -> bool:
    """Whether `recompute` was called on the model."""
    return any("forward" in vars(module) for module in model.modules())


def _replaced(module: nn.Module) -> int:
    """How many blocks there are in it; their forward is another from now on."""
    if next(module.parameters(), None) is None:
        return 0
    if isinstance(module, nn.ModuleList):
        blocks = [block for block in module if next(block.parameters(), None) is not None]
        for block in blocks:
            block.forward = partial(_recomputed, block.forward)
        return len(blocks)
    if isinstance(module, nn.Sequential) and len(module) > 1:
        size = isqrt(len(module) - 1) + 1
        parts = [module[first : first + size] for first in range(0, len(module), size)]
        module.forward = partial(_chained, parts)  # type: ignore[method-assign]
        return len(parts)
    return sum(map(_replaced, module.children()))


def _chained(parts: Sequence[nn.Module], value: Any) -> Any:
    for part in parts:
        value = _recomputed(part.forward, value)
    return value


def _recomputed(forward: Callable[..., Any], *inputs: Any, **named: Any) -> Any:
    """What a block's own forward returns, nothing in between kept."""
    if not torch.is_grad_enabled():
        return forward(*inputs, **named)
    if torch.compiler.is_compiling():  # which writes a buffer once, whatever is computed again
        return checkpoint(forward, *inputs, use_reentrant=False, **named)
    block: nn.Module = forward.__self__  # type: ignore[attr-defined]
    contexts = partial(_contexts, block)
    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts, **named)


def _contexts(block: nn.Module) -> tuple[Any, Any]:
    """Around the forward pass, and around the second one."""
    return nullcontext(), _unchanged(list(block.buffers()))


@contextmanager
def _unchanged(buffers: Sequence[torch.Tensor]) -> Iterator[None]:
    """The buffers are afterwards what they were: batch normalization has counted the batch already."""
    saved = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, before in zip(buffers, saved, strict=True):
            buffer.data.copy_(before)  # which autograd does not see: it keeps them for the way back

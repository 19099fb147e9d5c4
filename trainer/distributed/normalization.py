"""BatchNorm over a batch of which each of several processes has some rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from trainer.distributed.meeting import Meeting

KINDS = (_BatchNorm.forward, nn.SyncBatchNorm.forward)


@contextmanager
def synchronized(model: nn.Module, meeting: Meeting) -> Iterator[None]:
    """Inside, BatchNorm in training mode takes mean and variance over the rows of all processes.

    x̂ = (x − μ)/√(σ² + ε), with μ and σ² of the whole batch, forward and back: what
    `torch.nn.SyncBatchNorm` does, which is for GPUs only. A layer asks the others twice on the way there
    (first for μ, since Σx² − nμ² would cancel in float32) and twice on the way back. Layers with a
    ``forward`` of their own keep it.

    Args:
        model: whose layers compute so; nothing else of it changes.
        meeting: of the processes.
    """
    found = (module for module in model.modules() if isinstance(module, _BatchNorm))
    layers = [module for module in found if not normalizes_alone(module)]
    for layer in layers:
        # Not as a decorator: it imports the compiler, for which one process need not wait.
        apart = torch.compiler.disable(partial(_normalized, layer, meeting))
        layer.forward = apart  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def normalizes_alone(module: nn.Module) -> bool:
    """Whether the module is a BatchNorm that `synchronized` does not know how to compute."""
    return isinstance(module, _BatchNorm) and type(module).forward not in KINDS


def _normalized(layer: _BatchNorm, meeting: Meeting, x: Tensor) -> Tensor:
    if not layer.training:
        return type(layer).forward(layer, x)
    layer._check_input_dim(x)
    wide = x if x.dtype == torch.float64 else x.float()
    axes = [axis for axis in range(x.dim()) if axis != 1]
    shape = [-1 if axis == 1 else 1 for axis in range(x.dim())]
    own = wide.new_full((1,), x.numel() / x.shape[1])
    total: Tensor = _Summed.apply(torch.cat((wide.sum(axes), own)), meeting)  # type: ignore[no-untyped-call]
    count = total[-1].detach()
    mean = total[:-1] / count
    apart = wide - mean.view(shape)
    squares: Tensor = _Summed.apply(apart.square().sum(axes), meeting)  # type: ignore[no-untyped-call]
    variance = squares / count
    # Computed again on the way back, a batch has been counted already.
    if layer.track_running_stats and torch._C._current_graph_task_id() == -1:
        _track(layer, mean.detach(), variance.detach() * count / (count - 1))
    y = apart * (variance + layer.eps).rsqrt().view(shape)
    if layer.affine:
        y = y * layer.weight.view(shape) + layer.bias.view(shape)
    return y.to(x.dtype)


@torch.no_grad()
def _track(layer: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    """The running statistics, as torch keeps them."""
    assert layer.num_batches_tracked is not None
    layer.num_batches_tracked.add_(1)
    share: Any = layer.momentum
    if share is None:
        share = 1.0 / layer.num_batches_tracked.to(mean.dtype)
    for running, now in ((layer.running_mean, mean), (layer.running_var, variance)):
        assert running is not None
        running.copy_(running + share * (now.to(running.dtype) - running))


class _Summed(torch.autograd.Function):
    """The sum of a tensor over all processes; its gradient is the sum of theirs."""

    @staticmethod
    def forward(context: Any, value: Tensor, meeting: Meeting) -> Tensor:
        context.meeting = meeting
        return _sum(value, meeting)

    @staticmethod
    def backward(context: Any, slope: Tensor) -> Any:
        return _sum(slope, context.meeting), None


def _sum(value: Tensor, meeting: Meeting) -> Tensor:
    meeting.meet()
    total = value.detach().clone()
    dist.all_reduce(total)
    return total

"""Parameters, gradients and moments of which each of several processes keeps a part."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from trainer.clipping.rows import Rows
from trainer.clipping.units import TRANSPOSED
from trainer.data.tensors import each
from trainer.distributed.meeting import Meeting
from trainer.snapshot import Snapshots


class Sharding:
    """A model cut up among the processes by torch's FSDP2, `fully_shard` (arXiv 2304.11277).

    A matrix or kernel is cut along its first axis that N divides. A vector, and what N divides along no
    axis, every process has whole, and its gradient is averaged.

    What runs is a copy of the modules around the parts: block by block torch puts them together before
    use, and lets the rest go. The parameters that optimizer, clip and statistics know are the parts
    themselves from `begin` on, so that all these work as they do alone.

    Args:
        model: whole, the same in every process.
        optimizer: over its parameters, and those of a loss, which stay whole.
        meeting: of the processes.
    """

    def __init__(self, model: nn.Module, optimizer: Optimizer, meeting: Meeting) -> None:
        self.model, self.optimizer, self.meeting = model, optimizer, meeting
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        names = dict(model.named_parameters(remove_duplicate=False))
        self.axes = _axes(model, meeting.size)
        self.shapes = {parameter: parameter.shape for parameter in self.axes}
        self.named = {name: p for name, p in names.items() if p in self.axes}
        tensors = (*model.parameters(), *model.buffers())
        self.running: Any = copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
        _shard(self.running, self.axes, meeting)
        shards = dict(self.running.named_parameters(remove_duplicate=False))
        self.shards: dict[nn.Parameter, Any] = {p: shards[name] for name, p in self.named.items()}
        self.whole = [p for p in self.parameters if p not in self.axes]

    @property
    def nbytes(self) -> int:
        """Of the parameters that are cut, all parts together."""
        return sum(shape.numel() * parameter.element_size() for parameter, shape in self.shapes.items())

    @torch.no_grad()
    def begin(self, snapshots: Snapshots) -> None:
        """From now on parameters, moments and snapshots are this process's parts."""
        for module, running in zip(self.model.modules(), self.running.modules(), strict=True):
            running.training = module.training
        for parameter, shard in self.shards.items():
            local = shard.to_local()
            local.copy_(self._part(parameter, parameter))
            parameter.data = local
            for name, value in self.optimizer.state.get(parameter, {}).items():
                self.optimizer.state[parameter][name] = self._part(value, parameter)
        snapshots.taken = [self._mapped(self._part, state) for state in snapshots.taken]

    @torch.no_grad()
    def take_gradients(self) -> None:
        """After the backward pass: gives the parameters the gradients of their parts."""
        for parameter, shard in self.shards.items():
            parameter.grad = None if shard.grad is None else shard.grad.to_local()
            shard.grad = None

    def rows(self, parts: Sequence[Tensor], parameters: Sequence[Any]) -> Rows:
        """The parts, each cut as its parameter is."""
        return Rows(parts, [self.axes.get(p) for p in parameters], self.meeting.gathered)

    @torch.no_grad()
    def state(self, state: dict[str, Any]) -> dict[str, Any]:
        """The state of model, optimizer and snapshots, in the process that leads with whole tensors on
        the CPU; in the others, who have to ask for it too, without."""
        earlier = state["snapshots"]["taken"]
        taken = [self._mapped(self._collected, snapshot) for snapshot in earlier]
        return self._mapped(self._collected, state) | {"snapshots": {"taken": taken}}

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Inside, every process has the model whole."""
        parts = {parameter: parameter.data for parameter in self.axes}
        self.gather()
        try:
            yield
        finally:
            for parameter, part in parts.items():
                parameter.data = part

    @torch.no_grad()
    def gather(self) -> None:
        """Gives every process the model whole, until the next `begin`; the moments stay in parts."""
        for parameter in self.axes:
            parameter.data = self._joined(parameter.data, parameter)

    def _mapped(self, function: Any, state: dict[str, Any]) -> dict[str, Any]:
        """The state of model and optimizer with each tensor that is cut replaced by the function's."""
        model = {
            name: function(value, self.named[name]) if name in self.named else value
            for name, value in state["model"].items()
        }
        moments = {
            place: {name: function(value, self.parameters[place]) for name, value in own.items()}
            for place, own in state["optimizer"]["state"].items()
        }
        return state | {"model": model, "optimizer": state["optimizer"] | {"state": moments}}

    def _part(self, value: Any, parameter: nn.Parameter) -> Any:
        """Of a value shaped like the whole parameter the own part; any other as it is."""
        if not isinstance(value, Tensor) or value.shape != self.shapes.get(parameter):
            return value
        return value.chunk(self.meeting.size, self.axes[parameter])[self.meeting.rank].clone()

    def _collected(self, value: Any, parameter: nn.Parameter) -> Any:
        whole = self._joined(value, parameter)
        if whole is value:
            return value
        return whole.cpu() if self.meeting.rank == 0 else None

    def _joined(self, value: Any, parameter: nn.Parameter) -> Any:
        """Of a value shaped like the part of a parameter the whole; any other as it is."""
        if parameter not in self.axes or not isinstance(value, Tensor):
            return value
        if value.shape != self.shards[parameter].to_local().shape:
            return value
        parts = [torch.empty_like(value) for _ in range(self.meeting.size)]
        self.meeting.meet()
        dist.all_gather(parts, value.contiguous())
        return torch.cat(parts, self.axes[parameter])


def _axes(model: nn.Module, size: int) -> dict[nn.Parameter, int]:
    """Along which axis each parameter is cut, but for those that are not."""
    odd = [  # whose groups would be cut through
        parameter
        for module in model.modules()
        if isinstance(module, TRANSPOSED) and module.groups > 1
        for parameter in module.parameters()
    ]
    found = {}
    for parameter in model.parameters():
        even = [axis for axis, length in enumerate(parameter.shape) if length % size == 0]
        if parameter.dim() > 1 and even and not any(parameter is other for other in odd):
            found[parameter] = even[0]
    return found


def _shard(model: nn.Module, axes: Mapping[nn.Parameter, int], meeting: Meeting) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard  # takes longer to import than all the rest of torch
    from torch.distributed.tensor import Shard

    meeting.meet()
    settings: dict[str, Any] = {
        "mesh": init_device_mesh(meeting.on.type, (meeting.size,)),
        "ignored_params": {p for p in model.parameters() if p not in axes},
        "shard_placement_fn": lambda parameter: Shard(axes[parameter]),
    }
    for block in (*_blocks(model, axes), model):
        block.register_forward_hook(_without_views)
        fully_shard(block, **settings)


def _without_views(module: nn.Module, inputs: Any, output: Any) -> Any:
    """The output, copied where it is a view: who changes that in place would take it out of the sight of
    `fully_shard`, which warns of every one."""

    def copied(value: Any) -> Any:
        return value.clone() if isinstance(value, Tensor) and value._is_view() else value

    return each(copied, output)


def _blocks(model: nn.Module, axes: Mapping[nn.Parameter, int]) -> list[nn.Module]:
    """The modules that are put together by themselves: those in a `torch.nn.ModuleList` or a
    `torch.nn.Sequential`, unless a weight of theirs is needed outside too."""
    found: list[nn.Module] = []
    for module in model.modules():
        inside = any(module is part for block in found for part in block.modules())
        if isinstance(module, nn.ModuleList | nn.Sequential) and not inside:
            blocks = [child for child in module if not isinstance(child, nn.ModuleList | nn.ModuleDict)]
            found += [block for block in blocks if any(p in axes for p in block.parameters())]
    return [block for block in found if not _shares(model, block)]


def _shares(model: nn.Module, block: nn.Module) -> bool:
    """Whether a parameter of the block is that of a module outside of it."""
    own = set(block.modules())
    others = (module for module in model.modules() if module not in own)
    outside = {parameter for module in others for parameter in module.parameters(recurse=False)}
    return not outside.isdisjoint(block.parameters())

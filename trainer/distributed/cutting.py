"""What can be trained where each of several processes has a part of every tensor."""

from __future__ import annotations

from torch import nn, optim
from torch.optim import Optimizer

from trainer.clipping import Clip
from trainer.diagnostics import Diagnostics
from trainer.distributed.processes import Processes
from trainer.optimizers import Adagrad, NAdam

# Whose step takes each entry by itself, so that a part is stepped as in the whole.
ENTRYWISE: tuple[type[Optimizer], ...] = (
    *(optim.SGD, optim.Adam, optim.AdamW, optim.Adamax, optim.Adadelta, optim.RAdam, optim.RMSprop),
    *(optim.Rprop, Adagrad, NAdam),
)
ALSO = ("lion_pytorch",)  # packages of such optimizers, which need not be installed


def check_cut(
    processes: Processes, model: nn.Module, optimizer: Optimizer, clip: Clip, diagnostics: Diagnostics
) -> None:
    """Refuses what needs whole tensors, where `Processes.shards`.

    An optimizer of one's own says that it needs none by an attribute ``entrywise = True``, a clip by
    ``in_parts = True``.

    Args:
        processes: that train.
        model: as it is called.
        optimizer: steps parts of tensors.
        clip: gets parts of gradients.
        diagnostics: measures parts.

    Raises:
        ValueError: naming it.
    """
    if not processes.shards:
        return
    parts = f"where each of {processes.size} processes has a part of every tensor"
    kind = type(optimizer)
    known = kind in ENTRYWISE or kind.__module__.partition(".")[0] in ALSO
    if not (known or getattr(optimizer, "entrywise", False)):
        raise ValueError(
            f"optimizer must take each entry by itself {parts}, got {kind.__name__}; use trainer=ddp"
        )
    if not getattr(clip, "in_parts", False):
        raise ValueError(
            f"clip must say in_parts = True {parts}, got {type(clip).__name__}; use trainer=ddp"
        )
    if hasattr(model, "_orig_mod"):
        raise ValueError(f"compile must be false {parts}; use trainer=ddp")
    if not all(parameter.is_contiguous() for parameter in model.parameters()):
        raise ValueError(f"channels_last must be false {parts}; use trainer=ddp")
    whole = ("parameters", "histograms", "shares")
    if asked := [name for name in whole if getattr(diagnostics, name)]:
        raise ValueError(f"diagnostics.{asked[0]} must be false {parts}; use diagnostics=light")

"""The passes of a stack without `torch.vmap`, for chains of linear layers: its bookkeeping takes longer
than their work."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from trainer.evaluation import Loss

ENTRYWISE = (nn.ReLU, nn.LeakyReLU, nn.SELU, nn.GELU, nn.SiLU, nn.Tanh)
LOSSES = (nn.MSELoss, nn.L1Loss, nn.SmoothL1Loss, nn.HuberLoss)


class StackedLinear(nn.Module):
    """K linear layers as one: W_k x + b_k.

    Args:
        weight: (K, out, in).
        bias: (K, out), or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight, self.bias = weight, bias

    def forward(self, x: Tensor) -> Tensor:
        """(K, B, in) to (K, B, out)."""
        transposed = self.weight.transpose(1, 2)
        if self.bias is None:
            return torch.bmm(x, transposed)
        return torch.baddbmm(self.bias[:, None], x, transposed)


class Dense:
    """Model and loss of K members as one module on their rows; see `Dense.of`.

    Args:
        model: takes (K, B, …).
        loss: of one entry.
        members: K.
    """

    def __init__(self, model: nn.Module, loss: nn.Module, members: int) -> None:
        self.model, self.loss, self.members = model, loss, members

    @classmethod
    def of(cls, model: nn.Module, loss: Loss, rows: Mapping[str, Tensor]) -> Self | None:
        """For a model that takes axes in front of the batch and consists of linear layers and
        activations, with a mean of torch's over all entries as the loss; None for any other.

        Args:
            model: of one of the members.
            loss: likewise.
            rows: all that is trained, (K, …), as ``model.<name>``.
        """
        parts = {name: m for name, m in model.named_modules() if not [*m.children()]}
        layers = {name: m for name, m in parts.items() if type(m) is nn.Linear}
        names = {f"model.{name}.{own}" for name, m in layers.items() for own, _ in m.named_parameters()}
        known = all(name in layers or type(m) in ENTRYWISE for name, m in parts.items())
        takes_axes = vars(type(model)).get("leading_axes", False)
        if not (takes_axes and known and names == rows.keys() and _is_mean(loss)) or _hooked(model):
            return None
        stacked, entrywise = copy.deepcopy(model), copy.copy(loss)
        for name in layers:
            weight, bias = (rows.get(f"model.{name}.{own}") for own in ("weight", "bias"))
            assert weight is not None
            stacked.set_submodule(name, StackedLinear(weight, bias))
        entrywise.reduction = "none"  # type: ignore[attr-defined]
        return cls(stacked, entrywise, len(next(iter(rows.values()))))  # type: ignore[arg-type]

    def __call__(
        self, inputs: Tensor, targets: Tensor, axis: int | None
    ) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """Losses, (K,), no terms, and predictions, (K, B, …).

        Args:
            inputs: (B, …), or (K, B, …).
            targets: likewise.
            axis: None or 0, which of both.
        """
        if axis is None:
            inputs = inputs.expand(self.members, *inputs.shape)
        predictions = self.model(inputs)
        errors = self.loss(predictions, targets.expand_as(predictions))
        return errors.flatten(1).mean(1), {}, predictions


def _is_mean(loss: Any) -> bool:
    return type(loss) in LOSSES and loss.reduction == "mean"


def _hooked(model: nn.Module) -> bool:
    return any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())

"""How long each layer's gradient, weights and update are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainer.clipping.norms import tensor_norms

Numbers = NDArray[np.float64]


def layer_statistics(model: nn.Module, step: Callable[[], Any]) -> dict[str, dict[str, float]]:
    """Norms around one optimizer step, by layer: ‖g‖₂, ‖W‖₂ before the step, and ‖ΔW‖₂/‖W‖₂.

    A layer is a module that holds parameters of its own; one that is tied counts where it comes first.
    The ratio is the relative size of an update: near 1e-3 is usual, and it is what a learning rate
    should be judged by. It is left out where all weights are 0.

    Args:
        model: with gradients, as ``backward`` left them.
        step: takes the optimizer step.

    Returns:
        ``grad_norm``, ``weight_norm`` and ``update_ratio`` of each layer whose parameters are trained.

    Example:
        >>> layer = torch.nn.Linear(2, 1, bias=False)
        >>> layer.weight.data = torch.tensor([[3.0, 4.0]])
        >>> layer(torch.tensor([[0.0, 2.0]])).sum().backward()
        >>> layer_statistics(layer, torch.optim.SGD(layer.parameters(), lr=0.5).step)
        {'model': {'grad_norm': 2.0, 'weight_norm': 5.0, 'update_ratio': 0.2}}
    """
    norms = LayerNorms(layers_of({"": model}))
    norms.before()
    step()
    norms.after()
    found = norms.by_layer(torch.cat(norms.take()).double().cpu().numpy())
    return {
        name: {what: values[name] for what, values in found.items() if name in values}
        for name in norms.names
    }


def layers_of(
    modules: Mapping[str, nn.Module], trained: Iterable[Tensor] | None = None
) -> dict[str, list[Tensor]]:
    """The parameters that are trained, by the module that holds them, in the order of the modules.

    Args:
        modules: what to look through, by a prefix for the names: ``{"": model, "loss": loss}``. What the
            first itself holds goes by the name of ``model``.
        trained: the parameters to count; None for all that take a gradient.
    """
    counted = None if trained is None else {id(parameter) for parameter in trained}
    seen: set[int] = set()
    layers: dict[str, list[Tensor]] = {}
    for prefix, whole in modules.items():
        for inner, module in whole.named_modules(prefix=prefix):
            for parameter in module.parameters(recurse=False):
                wanted = parameter.requires_grad if counted is None else id(parameter) in counted
                if wanted and id(parameter) not in seen:
                    seen.add(id(parameter))
                    layers.setdefault(inner or "model", []).append(parameter)
    return layers


def by_prefix(model: nn.Module, loss: object) -> dict[str, nn.Module]:
    """The model and, if it is a module, the loss, by what the names of their layers begin with."""
    return {"": model, "loss": loss} if isinstance(loss, nn.Module) else {"": model}


class LayerNorms:
    """Measures one step: `before` it is committed, `after`, and then `by_layer` what was taken.

    Args:
        layers: parameters by name, none of them twice.

    Attributes:
        rows: where each process has a part of the parameters: tensors cut like them, as such.
    """

    rows: Callable[[list[Tensor], list[Tensor]], list[Tensor]] | None = None

    def __init__(self, layers: Mapping[str, list[Tensor]]) -> None:
        self.names = list(layers)
        self.parameters = [parameter for tensors in layers.values() for parameter in tensors]
        self.owners = np.repeat(np.arange(len(layers)), [len(t) for t in layers.values()])
        self.with_gradient: list[int] = []
        self.weights: list[Tensor] = []
        self.norms: list[Tensor] = []

    @torch.no_grad()
    def before(self) -> None:
        """With the gradients as the backward pass left them; copies the weights."""
        gradients = [parameter.grad for parameter in self.parameters]
        self.with_gradient = [place for place, g in enumerate(gradients) if g is not None]
        # One call for both: each costs as much as it measures of a small model.
        trained = [self.parameters[place] for place in self.with_gradient]
        tensors = [*(g for g in gradients if g is not None), *self.parameters]
        self.norms = [self._measured(tensors, [*trained, *self.parameters])]
        detached = [parameter.detach() for parameter in self.parameters]
        self.weights = list(torch._foreach_mul(detached, 1.0))

    @torch.no_grad()
    def after(self) -> None:
        """With the weights as the step left them."""
        torch._foreach_sub_(self.weights, self.parameters)
        self.norms.append(self._measured(self.weights, self.parameters))
        self.weights = []

    def take(self) -> list[Tensor]:
        """What was measured, where it is, to be transferred at once."""
        return self.norms

    def by_layer(self, norms: Numbers) -> dict[str, dict[str, float]]:
        """``grad_norm``, ``weight_norm`` and ``update_ratio``, each by layer.

        Args:
            norms: what was taken, in one row.
        """
        count = len(self.parameters)
        gradient = np.zeros(count)
        gradient[self.with_gradient] = norms[: -2 * count]
        grads, weights, updates = map(
            self._together, (gradient, norms[-2 * count : -count], norms[-count:])
        )
        ratios = np.divide(updates, weights, out=np.full(len(weights), np.nan), where=weights > 0)
        return {
            "grad_norm": self._named(grads),
            "weight_norm": self._named(weights),
            "update_ratio": {name: v for name, v in self._named(ratios).items() if v == v},
        }

    def _measured(self, tensors: list[Tensor], parameters: list[Tensor]) -> Tensor:
        return tensor_norms(tensors if self.rows is None else self.rows(tensors, parameters))

    def _together(self, norms: Numbers) -> Numbers:
        squares = np.bincount(self.owners, norms * norms, len(self.names)).astype(np.float64)
        return np.sqrt(squares)

    def _named(self, values: Numbers) -> dict[str, float]:
        return dict(zip(self.names, values.tolist(), strict=True))

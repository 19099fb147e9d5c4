"""Which parameters the weight decay is for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch.nn import Parameter

from trainer import checks

DECAYS = ("matrices", "all")


def parameter_groups(
    modules: Iterable[Any], weight_decay: float, decay: str = "matrices"
) -> list[Parameter] | list[dict[str, Any]]:
    """The parameters of some modules as an optimizer wants them, each once however often it is shared.

    With weight decay they come in two groups, and it is 0 for biases, the weights of normalizations and
    other vectors: to draw them to 0 does not regularize. What has two axes or more decays, embeddings
    and convolutions too. Without weight decay there is a single group, the cheaper step.

    Args:
        modules: model and loss; what has no ``parameters()`` adds none.
        weight_decay: the optimizer's, >= 0.
        decay: "matrices", or "all" to let vectors decay too.

    Returns:
        A list of parameters, or of one or two parameter groups.

    Raises:
        ValueError: for an unknown ``decay``.

    Example:
        >>> from torch import nn
        >>> groups = parameter_groups([nn.Linear(3, 2)], weight_decay=0.01)
        >>> [(len(group["params"]), group.get("weight_decay")) for group in groups]
        [(1, None), (1, 0.0)]
    """
    checks.choice("decay", decay, DECAYS)
    every = (p for module in modules for p in getattr(module, "parameters", list)())
    parameters = list({id(parameter): parameter for parameter in every}.values())
    if weight_decay == 0 or decay == "all":
        return parameters
    matrices = [parameter for parameter in parameters if parameter.dim() >= 2]
    vectors = [parameter for parameter in parameters if parameter.dim() < 2]
    groups: list[dict[str, Any]] = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]

"""Muon for the hidden matrices of a model, AdamW for everything else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer


class Muon(Optimizer):
    """b ← μ·b + (1 − μ)·g;  w ← w − lr·0.2·√max(m, n) · NS(g + μ·(b − g)), for (m, n) matrices.

    NS, the nearest orthogonal matrix, is a Newton-Schulz iteration in bfloat16 (Jordan 2024,
    kellerjordan.github.io/posts/muon); the factor makes updates of AdamW's size, so that both share one
    learning rate and weight decay (Liu 2025, arXiv 2502.16982). Both are torch's; this is one optimizer
    around them, with the groups of both and a single state.

    Args:
        params: parameters or groups of them. Those with two axes are hidden matrices; the others, the
            kernels of convolutions too, go to AdamW.
        lr: learning rate of both.
        momentum: μ.
        nesterov: look ahead by one momentum step.
        ns_steps: Newton-Schulz iterations.
        betas: β₁, β₂ of AdamW.
        eps: ε of AdamW.
        weight_decay: λ of both, decoupled.
        model: its embeddings and its last matrix, the output, go to AdamW too; None if there are none.

    Raises:
        ValueError: if there is no hidden matrix.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-3,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_steps: int = 5,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        model: nn.Module | None = None,
    ) -> None:
        outer = _outer(model) if model else set()
        given: list[Any] = list(params)
        groups = given if isinstance(given[0], dict) else [{"params": given}]

        def of(hidden: bool) -> list[dict[str, Any]]:
            split = []
            for group in groups:
                kept = [p for p in group["params"] if (p.dim() == 2 and id(p) not in outer) == hidden]
                split += [{**group, "params": kept}] if kept else []
            return split

        if not of(hidden=True):
            raise ValueError("there is no hidden matrix for Muon to train; use optimizer=adamw")
        shared: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay}
        rule: dict[str, Any] = {"momentum": momentum, "nesterov": nesterov, "ns_steps": ns_steps}
        rule |= {"adjust_lr_fn": "match_rms_adamw"}
        self.parts: list[Optimizer] = [torch.optim.Muon(of(hidden=True), **shared, **rule)]
        if rest := of(hidden=False):
            beta1, beta2 = betas
            adam: dict[str, Any] = {"betas": (beta1, beta2), "eps": eps, "fused": True}
            self.parts.append(torch.optim.AdamW(rest, **shared, **adam))
        super().__init__([group for part in self.parts for group in part.param_groups], {})
        self._share()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """A step of each."""
        loss = None if closure is None else closure()
        for part in self.parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the groups and the state of both."""
        super().load_state_dict(state_dict)
        self._share()

    def _share(self) -> None:
        """The parts have this optimizer's own groups and state, so that a schedule or a checkpoint that
        changes one changes the other."""
        groups = iter(self.param_groups)
        for part in self.parts:
            part.param_groups = [next(groups) for _ in part.param_groups]
            part.state = self.state


def _outer(model: nn.Module) -> set[int]:
    """The ids of the matrices between a model and the world: of embeddings, and the last of all."""
    embeddings = [module.weight for module in model.modules() if isinstance(module, nn.Embedding)]
    last = [parameter for parameter in model.parameters() if parameter.dim() == 2][-1:]
    return {id(parameter) for parameter in [*embeddings, *last]}

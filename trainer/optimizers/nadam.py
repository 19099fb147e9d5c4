"""NAdam that a checkpoint restores exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch


class NAdam(torch.optim.NAdam):
    """w ← w − lr·(μ_{t+1}·m/(1 − Π_{i≤t+1} μᵢ) + (1 − μ_t)·g/(1 − Π_{i≤t} μᵢ))/(√v̂ + ε) (Dozat 2016).

    torch's, but for the product of the μᵢ: torch's ``load_state_dict`` casts it to the dtype and device
    of the parameters, so that a resumed run in float64 rounds otherwise than one that was never cut,
    and one on CUDA has to wait for it in every step.

    Args:
        params: parameters or groups of them.
        lr: learning rate.
        betas: β₁, β₂; μ_t = β₁·(1 − 0.96^(t·momentum_decay)/2).
        eps: ε.
        momentum_decay: see betas.
        weight_decay: λ.
        decoupled_weight_decay: whether it is AdamW's, else it is added to the gradient.
        foreach: all parameters at once.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 2e-3,
        betas: Sequence[float] = (0.9, 0.999),
        eps: float = 1e-8,
        momentum_decay: float = 4e-3,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        foreach: bool = True,
    ) -> None:
        beta1, beta2 = betas
        super().__init__(
            params,
            lr,
            (beta1, beta2),
            eps,
            weight_decay,
            momentum_decay,
            decoupled_weight_decay,
            foreach=foreach,
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores all of it as it was."""
        super().load_state_dict(state_dict)
        for state in self.state.values():
            state["mu_product"] = state["mu_product"].to("cpu", torch.get_default_dtype())

"""A weighted mix of L1, smooth L1 and mean squared error."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from losses import checks
from losses.members import Value, Weight, each_member, keep


class CombinedLoss(nn.Module):
    """α·L1 + β·SmoothL1 + γ·MSE, each the mean over all entries.

    Args:
        alpha: α, weight of mean |p − t|; >= 0. Like the others a number, or a tensor (K,) with one for
            each of K members.
        beta: β, weight of smooth L1, d²/2 where |d| < 1, else |d| − 1/2; >= 0.
        gamma: γ, weight of mean (p − t)²; >= 0.

    Raises:
        ValueError: for a weight that is negative, not finite or no number, or if all are 0.

    Example:
        >>> predictions = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
        >>> loss, terms = CombinedLoss(0.7, 0.3, 0.05)(predictions, predictions + 0.1)
        >>> round(loss.item(), 4)
        0.072
    """

    alpha: Weight
    beta: Weight
    gamma: Weight

    def __init__(
        self,
        alpha: Weight = 0.7,
        beta: Weight = 0.3,
        gamma: Weight = 0.05,
    ) -> None:
        super().__init__()
        weights = {"alpha": alpha, "beta": beta, "gamma": gamma}
        for name, weight in weights.items():
            checks.weight(name, weight)
        if not torch.as_tensor(sum(weight > 0 for weight in weights.values())).all():
            raise ValueError("alpha, beta and gamma must not all be 0: there would be no loss")
        keep(self, **weights)

    def forward(self, predictions: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and the unweighted terms ``l1``, ``smooth_l1``, ``mse``.

        Args:
            predictions: any shape; (K, …) with weights of shape (K,).
            targets: the same shape.
        """
        return each_member(_combined, (self.alpha, self.beta, self.gamma), predictions, targets)


def _combined(alpha: Weight, beta: Weight, gamma: Weight, predictions: Tensor, targets: Tensor) -> Value:
    l1 = functional.l1_loss(predictions, targets)
    smooth_l1 = functional.smooth_l1_loss(predictions, targets)
    mse = functional.mse_loss(predictions, targets)
    total = alpha * l1 + beta * smooth_l1 + gamma * mse
    return total, {"l1": l1, "smooth_l1": smooth_l1, "mse": mse}

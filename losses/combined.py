"""A weighted mix of L1, smooth L1 and mean squared error."""

from __future__ import annotations

import math

from torch import Tensor, nn
from torch.nn import functional


class CombinedLoss(nn.Module):
    """α·L1 + β·SmoothL1 + γ·MSE, each the mean over all entries.

    Args:
        alpha: α, weight of mean |p − t|; >= 0.
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

    def __init__(self, alpha: float = 0.7, beta: float = 0.3, gamma: float = 0.05) -> None:
        super().__init__()
        weights = {"alpha": alpha, "beta": beta, "gamma": gamma}
        for name, weight in weights.items():
            number = isinstance(weight, int | float) and not isinstance(weight, bool)
            if not number or not math.isfinite(weight) or weight < 0:
                raise ValueError(f"{name} must be a finite number >= 0, got {weight!r}")
        if not any(weights.values()):
            raise ValueError("alpha, beta and gamma must not all be 0: there would be no loss")
        self.alpha, self.beta, self.gamma = alpha, beta, gamma

    def forward(self, predictions: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum, and the unweighted terms ``l1``, ``smooth_l1``, ``mse``.

        Args:
            predictions: any shape.
            targets: the same shape.
        """
        l1 = functional.l1_loss(predictions, targets)
        smooth_l1 = functional.smooth_l1_loss(predictions, targets)
        mse = functional.mse_loss(predictions, targets)
        total = self.alpha * l1 + self.beta * smooth_l1 + self.gamma * mse
        return total, {"l1": l1, "smooth_l1": smooth_l1, "mse": mse}

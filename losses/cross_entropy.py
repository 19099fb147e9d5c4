"""Cross-entropy of class labels, with label smoothing and the z-loss."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from losses import checks
from losses.members import Value, Weight, each_member, keep
from losses.numerics import widened


class CrossEntropy(nn.Module):
    """mean(−Σ_c q_c·log softmax(x)_c) + ζ·mean(log²Σ_c exp(x_c)), over the labels that count.

    q is 1 − λ + λ/C for the label and λ/C for every other class. The second term, the z-loss of PaLM
    (Chowdhery et al. 2022, §5, arXiv 2204.02311), keeps the logits from drifting. A batch in which every
    label is ignored has loss 0 and gradient 0; torch's own is NaN there.

    Args:
        label_smoothing: λ, in [0, 1].
        z_loss: ζ, weight of the z-loss; >= 0, PaLM's is 1e-4. A number, or a tensor (K,) for K members.
        ignore_index: the label that does not count.

    Raises:
        ValueError: for an argument out of range.

    Example:
        >>> loss, _ = CrossEntropy()(torch.zeros(2, 4), torch.tensor([0, 3]))
        >>> round(loss.item(), 4)
        1.3863
    """

    z_loss: Weight

    def __init__(
        self,
        label_smoothing: float = 0.0,
        z_loss: Weight = 0.0,
        ignore_index: int = -100,
    ) -> None:
        super().__init__()
        rule = "a number >= 0 and <= 1"
        self.label_smoothing = checks.number("label_smoothing", label_smoothing, rule, 0, 1)
        if type(ignore_index) is not int:
            raise ValueError(f"ignore_index must be a whole number, got {ignore_index!r}")
        self.ignore_index = ignore_index
        keep(self, z_loss=checks.weight("z_loss", z_loss))

    def forward(self, predictions: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum, and the terms ``cross_entropy`` and, if it has a weight, unweighted ``z_loss``.

        Args:
            predictions: logits (B, C, …), classes along axis 1; (K, B, C, …) with ``z_loss`` (K,).
            targets: labels (B, …), int64, in [0, C) or ``ignore_index``; (K, B, …) likewise.

        Raises:
            ValueError: if the targets are no labels of that shape.
        """
        return each_member(self._one, (self.z_loss,), predictions, targets)

    def _one(self, z_loss: Weight, logits: Tensor, labels: Tensor) -> Value:
        _check_labels(logits, labels)
        logits = widened(logits)
        counted = labels != self.ignore_index
        count = counted.sum().clamp_min(1)
        smoothing, ignored = self.label_smoothing, self.ignore_index
        summed = functional.cross_entropy(
            logits, labels, reduction="sum", label_smoothing=smoothing, ignore_index=ignored
        )
        cross_entropy = summed / count
        if isinstance(z_loss, float | int) and z_loss == 0:
            return cross_entropy, {"cross_entropy": cross_entropy}
        z = torch.where(counted, logits.logsumexp(1).square(), 0.0).sum() / count
        return cross_entropy + z_loss * z, {"cross_entropy": cross_entropy, "z_loss": z}


def _check_labels(logits: Tensor, labels: Tensor) -> None:
    if not isinstance(labels, Tensor):
        raise ValueError(f"targets must be labels in one int64 tensor, got a {type(labels).__name__}")
    if logits.dim() < 2 or labels.shape != logits.shape[:1] + logits.shape[2:]:
        raise ValueError(
            f"targets must be labels (B, …) for logits (B, C, …), got {tuple(labels.shape)} for "
            f"{tuple(logits.shape)}"
        )
    if labels.dtype != torch.int64:
        raise ValueError(f"targets must be int64 labels, got {str(labels.dtype).removeprefix('torch.')}")

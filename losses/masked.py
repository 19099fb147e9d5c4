"""A pattern that lies in part of the plane: found there, and nothing found elsewhere."""

from __future__ import annotations

import torch
from torch import Tensor, fft, nn

from losses import checks
from losses.members import Value, Weight, each_member, keep
from losses.numerics import EPS, modulus, stable_divide, stable_normalize, stable_std, widened


class MaskedLoss(nn.Module):
    """Foreground MSE(δ, τ) + w·background MSE(δ, 0), with δ = p/std(p) and τ = t/std(t).

    Foreground is where the mask is True. Complex predictions and targets count by their modulus. Each
    mean is over the entries of one sample, then over the samples; a sample whose mask leaves one side
    empty has 0 there. The loss asks for a multiple of the target, not for its scale.

    With an image, (1 − v)·masked + v·MSE(n(q), n(image)), where n takes mean and scale away and q is
    the prediction seen in the image domain: q = Re ifft2(ifftshift(p)). A real prediction of a complex
    target is its modulus and has no phase; it borrows the target's.

    Args:
        background: w, weight of the background; >= 0. Like ``image`` a number, or a tensor (K,).
        image: v, share of the image term where the targets hold an image; 0 <= v <= 1.
        eps: ε of p/(std(p) + ε), in units of the prediction; >= 1e-8. Where a prediction is constant the
            gradient is of the order of 1/ε.

    Raises:
        ValueError: for an argument out of range.

    Example:
        >>> target = torch.tensor([[3.0, 4.0, 0.0, 0.0]])
        >>> mask = torch.tensor([[True, True, False, False]])
        >>> loss, terms = MaskedLoss()(2 * target, (target, mask))
        >>> round(loss.item(), 4), list(terms)
        (0.0, ['foreground', 'background'])
    """

    background: Weight
    image: Weight

    def __init__(self, background: Weight = 0.1, image: Weight = 0.3, eps: float = EPS) -> None:
        super().__init__()
        self.eps = checks.number("eps", eps, "a finite number >= 1e-8", 1e-8)
        checks.weight("background", background)
        checks.weight("image", image, 1)
        keep(self, background=background, image=image)

    def forward(
        self, predictions: Tensor, targets: tuple[Tensor, ...]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum, and the unweighted terms ``foreground``, ``background``, with an image ``image``.

        Args:
            predictions: (B, …), real or complex, or one sample (N,); (B, …, H, W) with an image;
                (K, B, …) with weights (K,).
            targets: (target, mask) or (target, mask, image), each of the predictions' shape. The target
                is real or complex, with an image in the plane of `torch.fft.fftshift`; the mask is bool;
                the image is real.

        Raises:
            ValueError: if the targets are no such tuple.
        """
        return each_member(self._one, (self.background, self.image), predictions, targets)

    def _one(self, w: Weight, v: Weight, predictions: Tensor, targets: tuple[Tensor, ...]) -> Value:
        _check_targets(predictions, targets)
        target, mask = targets[:2]
        delta, tau = self._scaled(modulus(predictions)), self._scaled(modulus(target))
        foreground = _mean_where(mask, (delta - tau).square())
        background = _mean_where(~mask, delta.square())
        total, terms = foreground + w * background, {"foreground": foreground, "background": background}
        for image in targets[2:]:
            seen, wanted = _in_image_domain(predictions, target), image
            difference = self._normalized(seen) - self._normalized(wanted)
            terms["image"] = difference.square().mean()
            total = (1 - v) * total + v * terms["image"]
        return total, terms

    def _scaled(self, x: Tensor) -> Tensor:
        return stable_divide(_flat(x), stable_std(_flat(x), 1), self.eps)

    def _normalized(self, x: Tensor) -> Tensor:
        return stable_normalize(_flat(x), 1, self.eps)


def _mean_where(mask: Tensor, values: Tensor) -> Tensor:
    """The mean over the entries of each sample where the mask is True, 0 without any, then over all."""
    inside = _flat(mask)
    counts = inside.sum(1).clamp_min(1)
    return (torch.where(inside, values, 0.0).sum(1) / counts).mean()


def _in_image_domain(predictions: Tensor, target: Tensor) -> Tensor:
    plane = predictions if predictions.is_complex() else widened(predictions) * _phase(target)
    image: Tensor = fft.ifft2(fft.ifftshift(plane, dim=(-2, -1))).real
    return image


def _phase(target: Tensor) -> Tensor | float:
    """exp(i·arg t) of complex entries, which is 1 where t is 0; 1 of real ones."""
    return torch.where(target == 0, 1.0, target.sgn()) if target.is_complex() else 1.0


def _flat(x: Tensor) -> Tensor:
    return x.flatten(1) if x.dim() > 1 else x.unsqueeze(0)


def _check_targets(predictions: Tensor, targets: tuple[Tensor, ...]) -> None:
    form = "(target, mask) or (target, mask, image)"
    if isinstance(targets, Tensor) or len(targets) not in (2, 3):
        got = "one tensor" if isinstance(targets, Tensor) else f"{len(targets)} of them"
        raise ValueError(f"targets must be a tuple {form}, got {got}")
    if targets[1].dtype != torch.bool:
        raise ValueError(f"targets must be {form} with a mask of bool, got {targets[1].dtype}")
    if any(part.shape != predictions.shape for part in targets):
        shapes = ", ".join(str(tuple(part.shape)) for part in targets)
        raise ValueError(
            f"targets must be {form} of the predictions' shape {tuple(predictions.shape)}, got {shapes}"
        )
    if len(targets) == 3 and (predictions.dim() < 3 or targets[2].is_complex()):
        raise ValueError("targets must hold a real image (B, …, H, W) as the third, got another")

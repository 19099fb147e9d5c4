"""Gradient clipping, each mode a small object called once a step.

A mode gets the gradients and their norm, measured before anything touches them, and answers with a
`Clipped`. Modes that only rescale (the norm family) leave the gradients alone and hand back the
coefficient: whoever commits the step multiplies, and a fused optimizer does that for free. Their
formula is ``threshold(norm)``, on a tensor of shape ``()`` for one run or ``(K,)`` for K runs.

A mode that needs more than the gradients (the weights, which tensor is which, Adam's moments) has a
method ``bind(model, optimizer)``, called once, before the first step; `Trainer` does that. From then on
``gradients`` are those of the optimizer's parameters, in the order of its groups, without the parameters
that have none in this step. What such a mode remembers of a tensor goes by the parameter's place in that
order, so that a gradient that is missing for a step shifts nothing.

A gradient that holds NaN or inf is never touched by any mode: rescaling would spread the NaN to every
parameter, clamping would pass the inf off as an ordinary value. Refusing such a step is the guard's. Nor
does it enter a statistic, and where a mode learns from past norms, a norm of 0 does not either: it says
nothing of how long gradients are, and a threshold of 0 would be the last.
"""

from trainer.clipping.adagc import AdaGC
from trainer.clipping.agc import AGC
from trainer.clipping.autoclip import AutoClip
from trainer.clipping.clipped import Clip, Clipped, NoClip, Stateless
from trainer.clipping.layers import ClipByLayerNorm
from trainer.clipping.norm import ClipByNorm, rescaled
from trainer.clipping.norms import known_to_host, total_norm
from trainer.clipping.spam import SPAM
from trainer.clipping.value import ClipByValue
from trainer.clipping.zclip import ZClip

__all__ = [
    "AGC",
    "SPAM",
    "AdaGC",
    "AutoClip",
    "Clip",
    "ClipByLayerNorm",
    "ClipByNorm",
    "ClipByValue",
    "Clipped",
    "NoClip",
    "Stateless",
    "ZClip",
    "known_to_host",
    "rescaled",
    "total_norm",
]

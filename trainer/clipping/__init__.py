"""Gradient clipping, each mode a small object called once a step.

A mode gets the gradients and their norm, measured before anything touches them, and answers with a
`Clipped`. Modes that only rescale (the norm family) leave the gradients alone and hand back the
coefficient: whoever commits the step multiplies, and a fused optimizer does that for free. Their
formula is ``threshold(norm)``, on a tensor of shape ``()`` for one run or ``(K,)`` for K runs.

A gradient that holds NaN or inf is never touched by any mode: rescaling would spread the NaN to every
parameter, clamping would pass the inf off as an ordinary value. Refusing such a step is the guard's.
"""

from trainer.clipping.clipped import Clip, Clipped, NoClip, Stateless
from trainer.clipping.norm import ClipByNorm, rescaled
from trainer.clipping.norms import known_to_host, total_norm
from trainer.clipping.value import ClipByValue

__all__ = [
    "Clip",
    "ClipByNorm",
    "ClipByValue",
    "Clipped",
    "NoClip",
    "Stateless",
    "known_to_host",
    "rescaled",
    "total_norm",
]

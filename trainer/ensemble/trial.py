"""The first pass of a stack beside those of its members alone: are they equal, and what does each cost?"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from trainer.clipping import total_norm
from trainer.data.tensors import Batch, each
from trainer.ensemble.together import Together
from trainer.rng import rng_state, set_rng_state

PASSES = 2


@dataclass(frozen=True, slots=True)
class Trial:
    """What was found.

    Attributes:
        reason: why the stack must not be trained; "" if nothing is wrong.
        together: seconds of one pass of the stack.
        alone: seconds of one pass of each of its members, one after another.
    """

    reason: str = ""
    together: float = 0.0
    alone: float = 0.0


def tried(together: Together) -> Trial:
    """Takes the first batch through the stack and through each member; nothing changes but ``.grad``.

    What cannot be stacked (an LSTM has no batching rule), or would not be the same (a part that keeps
    a state elsewhere than in its buffers), is found here, before anything is trained.
    """
    device = next(iter(together.going.values())).trainer.device
    generators = rng_state(device)
    axis = together.axis
    batches = together.first_batches()
    stack = together.stack

    def measured(work: Callable[[], Any]) -> tuple[Any, float]:
        seconds = []
        for _ in range(PASSES):
            stack.roll_back()
            set_rng_state(device, generators)
            began = time.perf_counter()
            found = work()
            seconds.append(time.perf_counter() - began)
        return found, min(seconds)

    stack.begin()
    try:
        alone = 0.0
        expected, found = [], []
        for k, run in together.going.items():
            mine = [each(lambda t, k=k: t if axis is None else t[k], batch) for batch in batches]
            values, seconds = measured(lambda k=k, mine=mine: together.members[k].by_itself(mine))
            expected.append(values)
            alone += seconds
            expected[-1] += [b.clone() for m in run.trainer.modules.values() for b in m.buffers()]
            together.members[k].attach()
        means, seconds = measured(lambda: stack(batches, axis))
        norms = stack.norms(2.0)
        for k, run in together.going.items():
            found.append([norms[k], *(means[name][k] for name in means)])
            found[-1] += [b.clone() for m in run.trainer.modules.values() for b in m.buffers()]
        tolerance = 0.1 if stack.precision.autocasts else 1e-3
        for one, other in zip(expected, found, strict=True):
            if not _close(one, other, tolerance):
                return Trial("its loss is another in a stack than alone")
        return Trial("", seconds, alone)
    except Exception as error:
        return Trial(f"it cannot be stacked: {type(error).__name__}: {str(error).splitlines()[0]}")
    finally:
        stack.roll_back()
        set_rng_state(device, generators)


def _close(one: list[Tensor], other: list[Tensor], tolerance: float) -> bool:
    return len(one) == len(other) and all(
        torch.allclose(a.double(), b.double(), rtol=tolerance, atol=tolerance * 1e-2, equal_nan=True)
        for a, b in zip(one, other, strict=True)
    )

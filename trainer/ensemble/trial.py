"""The first pass of a stack beside those of its members: are they equal, and what do they cost?"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import torch
from torch import Tensor

from trainer.data.tensors import Batch, each
from trainer.ensemble.run import Run
from trainer.ensemble.together import Together
from trainer.rng import rng_state, set_rng_state

PASSES = 3
Found = TypeVar("Found")


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
    stack = together.stack
    stack.begin()
    generators = rng_state(stack.values.device)
    try:
        batches = together.first_batches()
        alone = [_alone(together, k, run, batches) for k, run in together.going.items()]
        means, seconds = _measured(together, lambda: stack(batches, together.axis))
        norms = stack.norms(2.0)
        tolerance = 0.1 if stack.precision.autocasts else 1e-3
        for (k, run), (expected, _) in zip(together.going.items(), alone, strict=True):
            found = [norms[k], *(values[k] for values in means.values()), *_buffers(run)]
            if not _close(expected, found, tolerance):
                return Trial("its loss is another in a stack than alone")
        return Trial("", seconds, sum(own for _, own in alone))
    except Exception as error:
        line = (str(error).splitlines() or [""])[0]
        return Trial(f"it cannot be stacked: {type(error).__name__}: {line}")
    finally:
        stack.roll_back()
        set_rng_state(stack.values.device, generators)


def paces(run: Run, threads: int) -> tuple[float, float]:
    """Seconds of a pass of one run, with one thread and with so many; its parts are used up."""
    run.data = run.data.to(run.trainer.device, run.trainer.precision.dtype)
    batches = list(islice(run.data.batches(0), run.trainer.accumulate))
    found = []
    for count in (1, threads):
        torch.set_num_threads(count)
        seconds = []
        for _ in range(PASSES):
            began = time.perf_counter()
            run.trainer.gradients(batches)
            seconds.append(time.perf_counter() - began)
        found.append(min(seconds))
    return found[0], found[1]


def _alone(together: Together, k: int, run: Run, batches: list[Batch]) -> tuple[list[Tensor], float]:
    """What a member finds in a pass of its own, and the seconds it takes."""
    mine = batches
    if together.axis is not None:
        mine = [each(lambda values: values[k], batch) for batch in batches]
    found, seconds = _measured(together, lambda: together.members[k].by_itself(mine))
    together.members[k].attach()
    return [*found, *_buffers(run)], seconds


def _measured(together: Together, work: Callable[[], Found]) -> tuple[Found, float]:
    """What the work returns, from the state that the members are in, and how long it takes at best."""
    device = together.stack.values.device
    before = rng_state(device)
    # Of a thread alone the processor's seconds say the same, and other processes disturb them less.
    alone = device.type == "cpu" and torch.get_num_threads() == 1
    clock = time.thread_time if alone else time.perf_counter
    seconds = []
    for _ in range(PASSES):
        together.stack.roll_back()
        set_rng_state(device, before)
        began = clock()
        found = work()
        seconds.append(clock() - began)
    set_rng_state(device, before)
    return found, min(seconds)


def _buffers(run: Run) -> list[Tensor]:
    return [buffer.clone() for part in run.trainer.modules.values() for buffer in part.buffers()]


def _close(one: list[Tensor], other: list[Tensor], tolerance: float) -> bool:
    return len(one) == len(other) and all(
        torch.allclose(a.double(), b.double(), rtol=tolerance, atol=tolerance * 1e-2, equal_nan=True)
        for a, b in zip(one, other, strict=True)
    )

"""What each clip mode costs: ``python -m benchmarks.clip``.

161 parameters of the shapes of a ResNet-50 (25.6 million entries), normal gradients, fused AdamW, on the
CPU. Timed is the update alone, from the gradients to the new weights: measure the norm where the
contender does, clip, step. Before each update the gradients are put back, outside the clock, so that
every contender has the same to clip in every update. The modes run as the trainer runs them, through
`Transaction`; beside them, in the same rounds:

no clip           fused AdamW and nothing else: no norm is measured either
clip_grad_norm_   torch's function, then fused AdamW
ZClip loop        the public code's way: a list of norms, ``.item()``, floats, one ``mul_`` a parameter
AGC loop          timm's way: per parameter two norms, clamps, ``where`` and a copy back

The norm, AutoClip and ZClip clip in every update. AGC is timed against its loop once more without the
optimizer: with every unit clipped, and with one parameter in ten.

Contenders take turns in one process and ratios are formed round by round (see `benchmarks.timing`).
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.tables import Part, shown, timed
from benchmarks.timing import Bar, Entry, interleave
from trainer.clipping import (
    AGC,
    SPAM,
    AdaGC,
    AutoClip,
    ClipByLayerNorm,
    ClipByNorm,
    ClipByValue,
    Clipped,
    NoClip,
    ZClip,
    total_norm,
)
from trainer.transaction import Transaction

LAMBDA, EPS, RATE = 0.01, 1e-3, 1e-5
UPDATE_BARS = [
    Bar("norm / no clip", 1.35, at_least=False),
    Bar("clip_grad_norm_ / norm", 1.0),
    Bar("autoclip / norm", 1.05, at_least=False),
    Bar("zclip / norm", 1.05, at_least=False),
]
AGC_BARS = [Bar("loop, all / agc, all", 2.5), Bar("loop, a tenth / agc, a tenth", 2.5)]


def shapes() -> list[tuple[int, ...]]:
    """Those of a ResNet-50: kernels without bias, each followed by a norm's weight and bias."""

    def kernel(out: int, into: int, size: int) -> list[tuple[int, ...]]:
        return [(out, into, size, size), (out,), (out,)]

    found, into = kernel(64, 3, 7), 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        width = 64 * 2**stage
        for block in range(blocks):
            found += kernel(width, into, 1) + kernel(width, width, 3) + kernel(4 * width, width, 1)
            found += kernel(4 * width, into, 1) if block == 0 else []
            into = 4 * width
    return [*found, (1000, into), (1000,)]


class Problem(nn.Module):
    """The parameters, their gradients, and one optimizer that all contenders share."""

    def __init__(self, scale: float = 0.05, share: float = 1.0) -> None:
        """Gradients are normal times the scale; but for a share of the parameters, a millionth of it."""
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weights = nn.ParameterList()
        self.saved: list[Tensor] = []
        for index, shape in enumerate(shapes()):
            fan_in = max(1, math.prod(shape[1:]))
            weight = torch.randn(shape, generator=generator) / math.sqrt(fan_in)
            self.weights.append(weight if len(shape) > 1 else torch.ones(shape))
            size = scale if index % round(1 / share) == 0 else 1e-6 * scale
            self.saved.append(size * torch.randn(shape, generator=generator))
        for weight in self.weights:
            weight.grad = torch.empty_like(weight)
        self.gradients: list[Tensor] = [weight.grad for weight in self.weights]
        self.optimizer = torch.optim.AdamW(self.weights, RATE, fused=True)
        self.transaction = Transaction([], self.optimizer)
        self.restore()
        self.norm = total_norm(self.gradients)

    def restore(self) -> None:
        """Puts the gradients back to what they were before any clip."""
        torch._foreach_copy_(self.gradients, self.saved)

    def time(self, update: Callable[[], Any], times: int) -> float:
        """Seconds for so many updates, each of the same gradients."""
        taken = 0.0
        for _ in range(times):
            self.restore()
            start = time.perf_counter()
            update()
            taken += time.perf_counter() - start
        return taken


def no_clip(problem: Problem) -> Callable[[], Any]:
    """The step of the optimizer alone."""
    return lambda: problem.transaction.commit(problem.gradients, Clipped())


def ours(problem: Problem, mode: Any) -> Callable[[], Any]:
    """What the trainer does with a mode, which has seen half the norm of the problem so far."""
    if hasattr(mode, "bind"):
        mode.bind(problem, problem.optimizer)
    if isinstance(mode, AutoClip | ZClip):
        for step in range(100):
            mode([], problem.norm * (0.5 + 0.05 * math.sin(step)))

    def update() -> None:
        norm = total_norm(problem.gradients, mode.norm_type)
        clipped = mode(problem.gradients, norm)
        if isinstance(mode, ClipByNorm | AutoClip | ZClip) and clipped.coefficient is None:
            raise RuntimeError(f"{type(mode).__name__} was to clip in every update")
        problem.transaction.commit(problem.gradients, clipped)

    return update


def torch_norm(problem: Problem) -> Callable[[], Any]:
    """torch's own function, then its optimizer."""

    def update() -> None:
        nn.utils.clip_grad_norm_(problem.weights, 1.0, foreach=True)
        problem.optimizer.step()

    return update


def zclip_loop(problem: Problem) -> Callable[[], Any]:
    """In the style of ZClip's public code: read the norm, reckon in floats, multiply one by one."""
    state = {"mean": problem.norm.item() / 2, "variance": (problem.norm.item() / 50) ** 2}

    def update() -> None:
        norms = [weight.grad.norm(2) for weight in problem.weights]
        norm = torch.sqrt(torch.sum(torch.pow(torch.stack(norms), 2))).item()
        deviation = math.sqrt(state["variance"])
        score = (norm - state["mean"]) / (deviation + 1e-6)
        limit = state["mean"] + 2.5**2 / score * deviation if score > 2.5 else norm
        if limit < norm:
            for weight in problem.weights:
                weight.grad.mul_(limit / (norm + 1e-6))
        state["mean"] = 0.97 * state["mean"] + 0.03 * limit
        state["variance"] = 0.97 * state["variance"] + 0.03 * (limit - state["mean"]) ** 2
        problem.optimizer.step()

    return update


def agc_loop(problem: Problem, steps: bool = True) -> Callable[[], Any]:
    """In the style of timm: parameter by parameter, all of it written anew. The head is left out."""

    def unit_norm(tensor: Tensor) -> Tensor:
        axes = tuple(range(1, tensor.dim()))
        return tensor.norm(2, dim=axes, keepdim=True) if axes else tensor.norm(2)

    def update() -> None:
        for weight in list(problem.weights)[:-2]:
            limit = unit_norm(weight.detach()).clamp_(min=EPS).mul_(LAMBDA)
            length = unit_norm(weight.grad)
            shorter = weight.grad * (limit / length.clamp(min=1e-6))
            weight.grad.copy_(torch.where(length < limit, weight.grad, shorter))
        if steps:
            problem.optimizer.step()

    return update


def agc(problem: Problem) -> Callable[[], Any]:
    """The mode alone. The list of parameters is one module, so its head is left out by hand."""
    mode = AGC(LAMBDA, EPS, skip_head=False)
    mode.bind(problem, problem.optimizer)
    mode.alone = set(list(problem.weights)[-2:])
    return lambda: mode(problem.gradients, problem.norm)


def updates() -> list[Entry]:
    """Every mode and what it is held against, on one problem."""
    problem = Problem()
    modes = {
        "norm": ClipByNorm(1.0),
        "none": NoClip(),
        "value": ClipByValue(0.05),
        "layer_norm": ClipByLayerNorm(1.0),
        "agc": AGC(LAMBDA, EPS, skip_head=False),
        "autoclip": AutoClip(),
        "zclip": ZClip(),
        "adagc": AdaGC(),
        "spam": SPAM(),
    }
    contenders = {"no clip": no_clip(problem), "clip_grad_norm_": torch_norm(problem)}
    contenders |= {name: ours(problem, mode) for name, mode in modes.items()}
    contenders |= {"ZClip loop": zclip_loop(problem), "AGC loop": agc_loop(problem)}
    return [Entry(name, partial(problem.time, update)) for name, update in contenders.items()]


def agc_alone() -> list[Entry]:
    """AGC and its loop, without the optimizer."""
    entries = []
    for label, share in (("all", 1.0), ("a tenth", 0.1)):
        problem = Problem(share=share)
        pair = {"agc": agc(problem), "loop": agc_loop(problem, steps=False)}
        entries += [Entry(f"{n}, {label}", partial(problem.time, u)) for n, u in pair.items()]
    return entries


def measure(rounds: int = 15, amount: int = 3, threads: int = 1) -> Iterator[Part]:
    """Milliseconds of every mode, and of AGC alone."""
    torch.set_num_threads(threads)
    size = f"{len(shapes())} parameters, {sum(map(math.prod, shapes())):,} entries"
    for title, make, bars in (
        (f"Clip and update of {size}", updates, UPDATE_BARS),
        ("AGC without the optimizer", agc_alone, AGC_BARS),
    ):
        entries = make()
        for entry in entries:
            entry.amount = amount
        interleave(entries, 1)  # warms up, and makes Adam's moments
        for entry in entries:
            entry.seconds.clear()
        interleave(entries, rounds)
        yield timed(title, entries, "ms", 1e3, bars)


def main() -> int:
    """Measures and prints; the status is 1 only when something crashed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15, help="turns for each contender")
    parser.add_argument("--updates", type=int, default=3, help="updates in one turn")
    parser.add_argument("--threads", type=int, default=1, help="torch threads for every contender")
    options = parser.parse_args()
    return shown(measure(options.rounds, options.updates, options.threads))


if __name__ == "__main__":
    raise SystemExit(main())

"""The published update of the usual optimizers, one step in float64 from the state before it.

Written from the papers, not from torch's code, so that one can be held against the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

Numbers = Mapping[str, Any]
# (settings of the group, state of the parameter, weights, gradient) -> weights after the step
Formula = Callable[[Numbers, Numbers, Tensor, Tensor], Tensor]


def formula_of(optimizer: Optimizer) -> Formula | None:
    """The formula that the optimizer's class is named after; None for a name that has none here."""
    return FORMULAS.get(type(optimizer).__name__)


def sgd(c: Numbers, s: Numbers, w: Tensor, g: Tensor) -> Tensor:
    """v ← μv + (1 − d)g, the first v being g;  w ← w − lr·v, with Nesterov w − lr·(g + μv)."""
    g = g + c["weight_decay"] * w
    if not c["momentum"]:
        return _moved(c, w, g)
    before = s.get("momentum_buffer")
    v = g if before is None else c["momentum"] * before + (1 - c["dampening"]) * g
    return _moved(c, w, g + c["momentum"] * v if c["nesterov"] else v)


def adam(c: Numbers, s: Numbers, w: Tensor, g: Tensor) -> Tensor:
    """m/(1 − β₁ᵗ) over √(v/(1 − β₂ᵗ)) + ε (arXiv 1412.6980); decoupled decay (arXiv 1711.05101)."""
    w, g = _decayed(c, w, g)
    t, m, v = _moments(c, s, g)
    (b1, b2), largest = c["betas"], v
    if c.get("amsgrad"):
        largest = torch.maximum(v, s.get("max_exp_avg_sq", torch.zeros_like(v)))
    return _moved(c, w, m / (1 - b1**t) / ((largest / (1 - b2**t)).sqrt() + c["eps"]))


def adamw(c: Numbers, s: Numbers, w: Tensor, g: Tensor) -> Tensor:
    """Adam whose weight decay is not part of the gradient (arXiv 1711.05101)."""
    return adam({**c, "decoupled_weight_decay": True}, s, w, g)


def radam(c: Numbers, s: Numbers, w: Tensor, g: Tensor) -> Tensor:
    """Adam, rectified while the variance of its second moment is large (arXiv 1908.03265)."""
    w, g = _decayed(c, w, g)
    t, m, v = _moments(c, s, g)
    b1, b2 = c["betas"]
    most = 2 / (1 - b2) - 1
    rho, update = most - 2 * t * b2**t / (1 - b2**t), m / (1 - b1**t)
    if rho > 5:
        r = math.sqrt((rho - 4) * (rho - 2) * most / ((most - 4) * (most - 2) * rho))
        update = update * r * math.sqrt(1 - b2**t) / (v.sqrt() + c["eps"])
    return _moved(c, w, update)


def nadam(c: Numbers, s: Numbers, w: Tensor, g: Tensor) -> Tensor:
    """Adam with Nesterov's momentum (Dozat 2016)."""
    w, g = _decayed(c, w, g)
    t, m, v = _moments(c, s, g)
    b1, b2 = c["betas"]
    mu, after = (b1 * (1 - 0.96 ** (k * c["momentum_decay"]) / 2) for k in (t, t + 1))
    product = float(s.get("mu_product", 1.0)) * mu
    ahead = after * m / (1 - product * after) + (1 - mu) * g / (1 - product)
    return _moved(c, w, ahead / ((v / (1 - b2**t)).sqrt() + c["eps"]))


def rmsprop(c: Numbers, s: Numbers, w: Tensor, g: Tensor) -> Tensor:
    """g/(√v + ε) with v the moving mean square, less the squared mean if centered (Tieleman 2012)."""
    g = g + c["weight_decay"] * w
    zero = torch.zeros_like(g)
    v = c["alpha"] * s.get("square_avg", zero) + (1 - c["alpha"]) * g.square()
    if c["centered"]:
        v = v - (c["alpha"] * s.get("grad_avg", zero) + (1 - c["alpha"]) * g).square()
    update = g / (v.sqrt() + c["eps"])
    return _moved(c, w, c["momentum"] * s.get("momentum_buffer", zero) + update)


def adagrad(c: Numbers, s: Numbers, w: Tensor, g: Tensor) -> Tensor:
    """g/(√Σg² + ε) (Duchi 2011)."""
    g = g + c["weight_decay"] * w
    first = torch.full_like(w, c.get("initial_accumulator_value", 0.0))
    slower = 1 + (_count(s) - 1) * c["lr_decay"]
    return _moved(c, w, g / ((s.get("sum", first) + g.square()).sqrt() + c["eps"]) / slower)


def adafactor(c: Numbers, s: Numbers, w: Tensor, g: Tensor) -> Tensor:
    """The second moment of a matrix by its rows and columns (arXiv 1804.04235)."""
    t, least = _count(s), c["eps"][0] or torch.finfo(w.dtype).eps
    new = t ** c["beta2_decay"]
    size = max(c["eps"][1], _rms(w)) * min(c["lr"], 1 / math.sqrt(t))
    w, _ = _decayed({**c, "decoupled_weight_decay": True}, w, g)
    if w.dim() < 2:
        v = _toward(s.get("variance"), g.square(), new)
    else:
        rows = _toward(s.get("row_var"), g.square().mean(-1, keepdim=True), new)
        columns = _toward(s.get("col_var"), g.square().mean(-2, keepdim=True), new)
        v = rows * columns / rows.mean(-2, keepdim=True).clamp(min=least)
    u = g / v.clamp(min=least**2).sqrt()
    return _moved({"lr": size}, w, u / max(1.0, _rms(u) / c["d"]))


def lion(c: Numbers, s: Numbers, w: Tensor, g: Tensor) -> Tensor:
    """The sign of a mix of momentum and gradient (arXiv 2302.06675)."""
    b1, _ = c["betas"]
    m = s.get("exp_avg", torch.zeros_like(g))
    return _moved(c, w, (b1 * m + (1 - b1) * g).sign() + c["weight_decay"] * w)


def muon(c: Numbers, s: Numbers, w: Tensor, g: Tensor) -> Tensor:
    """Newton-Schulz of the momentum for hidden matrices (Jordan 2024; arXiv 2502.16982), AdamW else."""
    if "ns_steps" not in c:
        return adamw(c, s, w, g)
    mu = c["momentum"]
    b = mu * s.get("momentum_buffer", torch.zeros_like(g)) + (1 - mu) * g
    update = _orthogonal(g + mu * (b - g) if c["nesterov"] else b, c)
    rows, columns = w.shape
    matched = c.get("adjust_lr_fn") == "match_rms_adamw"
    size = 0.2 * math.sqrt(max(rows, columns)) if matched else math.sqrt(max(1, rows / columns))
    return _moved(c, w, size * update + c["weight_decay"] * w)


def _orthogonal(g: Tensor, c: Numbers) -> Tensor:
    """Jordan's iteration in bfloat16, as he has it: it is no exact orthogonalization."""
    c1, c3, c5 = c.get("ns_coefficients", (3.4445, -4.7750, 2.0315))
    x = g.bfloat16()
    x = x.T if g.shape[0] > g.shape[1] else x
    x = x / x.norm().clamp(min=c.get("eps", 1e-7))
    for _ in range(c["ns_steps"]):
        a = x @ x.T
        x = torch.addmm(x, torch.addmm(a, a, a, beta=c3, alpha=c5), x, beta=c1)
    return (x.T if g.shape[0] > g.shape[1] else x).to(g.dtype)


def _moved(c: Numbers, w: Tensor, update: Tensor) -> Tensor:
    """w − lr·u."""
    rate: float = c["lr"]
    return w - rate * update


def _decayed(c: Numbers, w: Tensor, g: Tensor) -> tuple[Tensor, Tensor]:
    """Weights and gradient after the weight decay, which is for the one or for the other."""
    if c.get("decoupled_weight_decay", False):
        return w - c["lr"] * c["weight_decay"] * w, g
    return w, g + c["weight_decay"] * w


def _moments(c: Numbers, s: Numbers, g: Tensor) -> tuple[float, Tensor, Tensor]:
    b1, b2 = c["betas"]
    m = _toward(s.get("exp_avg"), g, 1 - b1)
    return _count(s), m, _toward(s.get("exp_avg_sq"), g.square(), 1 - b2)


def _toward(average: Tensor | None, value: Tensor, share: float) -> Tensor:
    return share * value if average is None else (1 - share) * average + share * value


def _count(s: Numbers) -> float:
    """The number of the step to come."""
    return float(s.get("step", 0)) + 1


def _rms(x: Tensor) -> float:
    return x.square().mean().sqrt().item()


FORMULAS: dict[str, Formula] = {
    "SGD": sgd,
    "Adam": adam,
    "AdamW": adamw,
    "RAdam": radam,
    "NAdam": nadam,
    "RMSprop": rmsprop,
    "Adagrad": adagrad,
    "Adafactor": adafactor,
    "Lion": lion,
    "Muon": muon,
}

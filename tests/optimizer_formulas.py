"""The formulas of conf/optimizer, written out once more, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]
Numbers = dict[str, Any]
# The gradients of all steps to the weights after them, from the numbers and the weights before.
Formula = Callable[[Numbers, Array, list[Array]], Array]


def decayed(c: Numbers, w: Array, g: Array) -> tuple[Array, Array]:
    """Weights and gradient after the weight decay, which is for the one or for the other."""
    if c.get("decoupled_weight_decay", False):
        return w - c["lr"] * c["weight_decay"] * w, g
    return w, g + c["weight_decay"] * w


def adam(c: Numbers, w: Array, gradients: list[Array]) -> Array:
    """Kingma & Ba's algorithm 1; with the decay of Loshchilov & Hutter where it is decoupled."""
    (b1, b2), m, v = c["betas"], np.zeros_like(w), np.zeros_like(w)
    for t, gradient in enumerate(gradients, 1):
        w, g = decayed(c, w, gradient)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        w = w - c["lr"] * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + c["eps"])
    return w


def radam(c: Numbers, w: Array, gradients: list[Array]) -> Array:
    """Liu et al.'s algorithm 2."""
    (b1, b2), m, v = c["betas"], np.zeros_like(w), np.zeros_like(w)
    most = 2 / (1 - b2) - 1
    for t, gradient in enumerate(gradients, 1):
        w, g = decayed(c, w, gradient)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        update, rho = m / (1 - b1**t), most - 2 * t * b2**t / (1 - b2**t)
        if rho > 5:
            r = math.sqrt((rho - 4) * (rho - 2) * most / ((most - 4) * (most - 2) * rho))
            update = update * r * math.sqrt(1 - b2**t) / (np.sqrt(v) + c["eps"])
        w = w - c["lr"] * update
    return w


def nadam(c: Numbers, w: Array, gradients: list[Array]) -> Array:
    (b1, b2), m, v, product = c["betas"], np.zeros_like(w), np.zeros_like(w), 1.0
    for t, gradient in enumerate(gradients, 1):
        w, g = decayed(c, w, gradient)
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
        mu, after = (b1 * (1 - 0.96 ** (s * c["momentum_decay"]) / 2) for s in (t, t + 1))
        product *= mu
        ahead = after * m / (1 - product * after) + (1 - mu) * g / (1 - product)
        w = w - c["lr"] * ahead / (np.sqrt(v / (1 - b2**t)) + c["eps"])
    return w


def rmsprop(c: Numbers, w: Array, gradients: list[Array]) -> Array:
    m, v, b = (np.zeros_like(w) for _ in range(3))
    for gradient in gradients:
        w, g = decayed(c, w, gradient)
        m, v = c["alpha"] * m + (1 - c["alpha"]) * g, c["alpha"] * v + (1 - c["alpha"]) * g**2
        spread = v - m**2 if c["centered"] else v
        b = c["momentum"] * b + g / (np.sqrt(spread) + c["eps"])
        w = w - c["lr"] * b
    return w


def adagrad(c: Numbers, w: Array, gradients: list[Array]) -> Array:
    s = np.full_like(w, c["initial_accumulator_value"])
    for t, gradient in enumerate(gradients, 1):
        w, g = decayed(c, w, gradient)
        s = s + g**2
        w = w - c["lr"] / (1 + (t - 1) * c["lr_decay"]) * g / (np.sqrt(s) + c["eps"])
    return w


def rms(x: Array) -> float:
    return float(np.sqrt(np.mean(x**2)))


def adafactor(c: Numbers, w: Array, gradients: list[Array]) -> Array:
    """Shazeer & Stern's algorithms 4 (matrices) and 5 (vectors)."""
    least = c["eps"][0] or np.finfo(np.float64).eps
    rows = columns = np.zeros(1)
    for t, g in enumerate(gradients, 1):
        new = t ** c["beta2_decay"]
        size = max(c["eps"][1], rms(w)) * min(c["lr"], 1 / math.sqrt(t))
        w = w - c["lr"] * c["weight_decay"] * w
        rows = (1 - new) * rows + new * (g**2 if g.ndim == 1 else (g**2).mean(1))
        columns = (1 - new) * columns + new * (g**2).mean(0)
        v = rows if g.ndim == 1 else np.outer(rows, columns) / max(rows.mean(), least)
        u = g / np.sqrt(np.maximum(v, least**2))
        w = w - size * u / max(1, rms(u) / c["d"])
    return w


def orthogonal(g: Array, iterations: int) -> Array:
    """Jordan's Newton-Schulz iteration, in bfloat16 as he has it."""
    x = torch.tensor(g).bfloat16()
    x = x.T if g.shape[0] > g.shape[1] else x
    x = x / x.norm()
    for _ in range(iterations):
        a = x @ x.T
        b = torch.addmm(a, a, a, beta=-4.7750, alpha=2.0315)
        x = torch.addmm(x, b, x, beta=3.4445)
    x = x.T if g.shape[0] > g.shape[1] else x
    return x.double().numpy()


def muon(c: Numbers, w: Array, gradients: list[Array]) -> Array:
    if w.ndim != 2:
        return adam({**c, "decoupled_weight_decay": True}, w, gradients)
    b, mu, size = np.zeros_like(w), c["momentum"], 0.2 * math.sqrt(max(w.shape))
    for g in gradients:
        b = mu * b + (1 - mu) * g
        ahead = g + mu * (b - g) if c["nesterov"] else b
        update = size * orthogonal(ahead, c["ns_steps"])
        w = w - c["lr"] * (update + c["weight_decay"] * w)
    return w


def lion(c: Numbers, w: Array, gradients: list[Array]) -> Array:
    (b1, b2), m = c["betas"], np.zeros_like(w)
    for g in gradients:
        w = w - c["lr"] * (np.sign(b1 * m + (1 - b1) * g) + c["weight_decay"] * w)
        m = b2 * m + (1 - b2) * g
    return w


def sgd(c: Numbers, w: Array, gradients: list[Array]) -> Array:
    v = np.zeros_like(w)
    for gradient in gradients:
        g = gradient + c["weight_decay"] * w
        v = c["momentum"] * v + g
        w = w - c["lr"] * (g + c["momentum"] * v if c["nesterov"] else v)
    return w


FORMULAS: dict[str, Formula] = {
    "adafactor": adafactor,
    "adagrad": adagrad,
    "adam": adam,
    "adamw": lambda c, w, gradients: adam({**c, "decoupled_weight_decay": True}, w, gradients),
    "lion": lion,
    "muon": muon,
    "nadam": nadam,
    "radam": radam,
    "rmsprop": rmsprop,
    "sgd": sgd,
}
# What torch keeps in float32 or bfloat16 whatever the parameters are; elsewhere nothing is rounded.
ROUNDED = {"nadam": 1e-6, "muon": 1e-6}

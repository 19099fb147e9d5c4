"""Checks of optimizer settings, which torch's own constructors make only in part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trainer import checks


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuses numbers that no optimizer can train with; names it does not know are left alone.

    Args:
        settings: keyword arguments of an optimizer's constructor.

    Raises:
        ValueError: for ``lr`` not finite and > 0, ``weight_decay`` or ``eps`` negative, ``momentum`` or
            one of ``betas`` outside [0, 1), and the like for what `AT_LEAST_0` and `SHARES` name.
    """
    if "lr" in settings:
        checks.number("lr", settings["lr"], above=0, remedy="1e-3 is a usual start for Adam")
    for name in (name for name in AT_LEAST_0 if name in settings):
        checks.number(name, settings[name], at_least=0)
    for name in (name for name in SHARES if name in settings):
        checks.number(name, settings[name], at_least=0, below=1)
    if "ns_steps" in settings:
        checks.whole("ns_steps", settings["ns_steps"], at_least=1, below=100)
    eps = settings.get("eps", 0.0)
    if not isinstance(eps, Sequence):
        checks.number("eps", eps, at_least=0)
    else:  # Adafactor's is a pair, its first the dtype's own where it is null
        for index, value in enumerate(0.0 if value is None else value for value in eps):
            checks.number(f"eps[{index}]", value, at_least=0)
    betas = settings.get("betas", ())
    if not isinstance(betas, Sequence):
        raise ValueError(f"betas must be a list of numbers, got {betas!r}")
    for index, beta in enumerate(betas):
        checks.number(f"betas[{index}]", beta, at_least=0, below=1)


AT_LEAST_0 = ("weight_decay", "lr_decay", "momentum_decay", "initial_accumulator_value")
SHARES = ("momentum", "alpha", "rho")

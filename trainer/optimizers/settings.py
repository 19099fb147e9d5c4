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
            one of ``betas`` outside [0, 1).
    """
    if "lr" in settings:
        checks.number("lr", settings["lr"], above=0, remedy="1e-3 is a usual start for Adam")
    for name in ("weight_decay", "eps"):
        if name in settings:
            checks.number(name, settings[name], at_least=0)
    if "momentum" in settings:
        checks.number("momentum", settings["momentum"], at_least=0, below=1)
    betas = settings.get("betas", ())
    if not isinstance(betas, Sequence):
        raise ValueError(f"betas must be a list of numbers, got {betas!r}")
    for index, beta in enumerate(betas):
        checks.number(f"betas[{index}]", beta, at_least=0, below=1)

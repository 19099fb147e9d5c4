"""What a check found: whether it holds, by how much, and where it does not."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

MOST_FAILURES = 12  # of one check; a model that is wrong throughout is told from so many


@dataclass(frozen=True, slots=True)
class Failure:
    """A place where a check does not hold.

    Attributes:
        name: of the parameter, buffer or module.
        got: what was found there.
        expected: what should have been.
        cause: what is likely to be wrong.
        index: of the entry; None where it is about the whole.
    """

    name: str
    got: str
    expected: str
    cause: str
    index: tuple[int, ...] | None = None

    @property
    def place(self) -> str:
        """The name, with the index where there is one."""
        return self.name + ("" if not self.index else f"[{', '.join(map(str, self.index))}]")

    def __str__(self) -> str:
        return f"{self.place}: {self.got}, not {self.expected}; {self.cause}"


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of a check.

    Attributes:
        name: of the check.
        looked_at: what it has looked at, with numbers.
        failures: where it does not hold, the worst first.
        worst: the worst figure; None where there is nothing to measure.
        limit: what the figure has to stay below.
        notes: what is to be known beside, such as parameters that are frozen.
        skipped: why it could not be made; empty if it was.
    """

    name: str
    looked_at: str = ""
    failures: tuple[Failure, ...] = ()
    worst: float | None = None
    limit: float | None = None
    notes: tuple[str, ...] = ()
    skipped: str = ""

    @property
    def passed(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.failures

    @property
    def verdict(self) -> str:
        """pass, FAIL or not made."""
        return "not made" if self.skipped else "pass" if self.passed else "FAIL"

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain values; a worst figure that is not finite is None."""
        finite = self.worst is not None and math.isfinite(self.worst)
        return {"verdict": self.verdict, **asdict(self), "worst": self.worst if finite else None}

    def __str__(self) -> str:
        figure = "" if self.worst is None else f", worst {self.worst:.2g}"
        figure += "" if self.limit is None else f" (limit {self.limit:g})"
        lines = [f"{self.name}: {self.verdict}{figure}  {self.skipped or self.looked_at}"]
        return "\n".join([*lines, *(f"  {line}" for line in (*self.failures, *self.notes))])


def index_of(tensor: Tensor, place: int) -> tuple[int, ...]:
    """The index of an entry that is numbered as in the flattened tensor."""
    index = []
    for size in reversed(tensor.shape):
        place, here = divmod(place, size)
        index.append(here)
    return tuple(reversed(index))


def first_difference(got: Tensor, expected: Tensor) -> tuple[tuple[int, ...] | None, str, str] | None:
    """The first entry in which two tensors differ, and both values; None where they agree to the bit."""
    if got.shape != expected.shape or got.dtype != expected.dtype:
        return None, f"{tuple(got.shape)} {got.dtype}", f"{tuple(expected.shape)} {expected.dtype}"
    same = _same(got, expected)
    if same.all():
        return None
    place = int((~same).flatten().nonzero()[0])
    values = (tensor.flatten()[place].item() for tensor in (got, expected))
    return (index_of(got, place), *map(repr, values))  # type: ignore[return-value]


def largest_difference(got: Tensor, expected: Tensor) -> float:
    """The largest absolute difference of any entry; inf where the shapes differ, or a NaN is in one."""
    if got.shape != expected.shape:
        return math.inf
    wide = [tensor if tensor.is_complex() else tensor.double() for tensor in (got, expected)]
    apart = (wide[0] - wide[1]).abs().masked_fill(_same(got, expected), 0.0)
    return float(apart.nan_to_num(math.inf, math.inf).max()) if apart.numel() else 0.0


def _same(some: Tensor, others: Tensor) -> Tensor:
    """Where two tensors agree, NaN with NaN too."""
    return (some == others) | ((some != some) & (others != others))

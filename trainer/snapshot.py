"""Earlier states of a run, in memory, to go back to when the present one is beyond mending."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor


class Snapshots:
    """The two latest snapshots of some stateful parts.

    Going back takes the older one: the newest may have been taken when the trouble had already begun.
    They are part of a checkpoint, so that a resumed run goes back to where it would have gone.

    Args:
        parts: objects with ``state_dict`` and ``load_state_dict``, by name.
        budget: bytes that all snapshots together may take.
    """

    def __init__(self, parts: Mapping[str, Any], budget: float) -> None:
        self.parts = parts
        self.budget = budget
        self.taken: list[dict[str, Any]] = []

    def begin(self, every: int | None) -> None:
        """Takes the first, before the first step: trouble in the first steps is the commonest.

        Args:
            every: steps between two; None wants none.
        """
        if every and not self.taken:
            self.take()

    def take(self) -> None:
        """Copies the parts' present state, and forgets what goes beyond two or beyond the budget.

        Raises:
            ValueError: if not even one snapshot fits.
        """
        now = {name: copied(part.state_dict()) for name, part in self.parts.items()}
        size = size_of(now)
        if size > self.budget:
            raise ValueError(
                f"budget_mb must hold one snapshot of {size / 2**20:.0f} MiB, got "
                f"{self.budget / 2**20:g}; raise guard.budget_mb or use guard=skip"
            )
        keep = 2 if 2 * size <= self.budget else 1
        self.taken = [*self.taken, now][-keep:]

    def restore(self) -> bool:
        """Puts the parts back to the oldest snapshot, the only one kept then; False without any."""
        self.taken = self.taken[:1]
        for state in self.taken:
            for name, part in self.parts.items():
                # A copy: an optimizer goes on with the very tensors it is given.
                part.load_state_dict(copied(state[name]))
        return bool(self.taken)

    def state_dict(self) -> dict[str, Any]:
        """The snapshots."""
        return {"taken": list(self.taken)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores the snapshots."""
        self.taken = list(state["taken"])


def own(value: Any) -> Any:
    """The state with tensors that are part of a larger one cloned: to write a view is to write all that
    it is a view of."""
    return _mapped(lambda t: t.clone() if t.untyped_storage().nbytes() > t.nbytes else t, value)


def copied(value: Any) -> Any:
    """The same containers with copies of their tensors."""
    # copy.deepcopy does the same ten times slower, 1 ms for the tensors of a small network.
    return _mapped(lambda tensor: tensor.detach().clone(), value)


def _mapped(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        mapped = type(value)((key, _mapped(function, item)) for key, item in value.items())
        if hasattr(value, "_metadata"):  # the versions of the modules, in a module's state
            mapped._metadata = value._metadata  # type: ignore[attr-defined]
        return mapped
    if isinstance(value, list | tuple):
        return type(value)(_mapped(function, item) for item in value)
    return value


def size_of(value: Any) -> int:
    """Bytes of all tensors in containers."""
    if isinstance(value, Tensor):
        return value.nbytes
    if isinstance(value, dict):
        return sum(map(size_of, value.values()))
    return sum(map(size_of, value)) if isinstance(value, list | tuple) else 0

"""What diagnostics see of a stack in one go is what each of them would have seen alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from test_ensemble import assert_equal, data, together, trainer
from torch import nn

from models.mlp import MLP
from trainer.diagnostics import Diagnostics
from trainer.ensemble import Together
from trainer.guard import Skip
from trainer.loop import Trainer


def looked_into(k: int, activation: str = "relu", **more: Any) -> Trainer:
    """A member whose every second line is looked into."""
    settings = {"c": 0.2 * (k + 1), "steps": 40, "log_every": 5, "diagnostics": Diagnostics(every=2)}
    run = trainer(model=lambda: MLP((6,), (2,), hidden=(8, 8), activation=activation), **settings | more)
    run.loss = run.gradients.loss = nn.MSELoss()
    return run


def in_one_go(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The steps that are taken member by member from now on."""
    apart: list[int] = []
    whole = Together._step_apart

    def counted(self: Together, batches: Any) -> None:
        apart.append(self._head.step)
        whole(self, batches)

    monkeypatch.setattr(Together, "_step_apart", counted)
    return apart


def alike(makes: list[Callable[[], Trainer]], tolerance: float) -> None:
    for run, make in zip(together(makes), makes, strict=True):
        alone = make()
        assert_equal(run, alone, alone.fit(data()), tolerance)
        committed = alone.guard.skipped < 10  # type: ignore[attr-defined]
        assert committed == any(tag.startswith("activations/") for tag in alone.record.tags)
        assert committed == any(tag.endswith("/update_ratio") for tag in alone.record.tags)


@pytest.mark.parametrize("precision", ["fp64", "fp32"])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_each_sees_what_it_would_see_alone(
    monkeypatch: pytest.MonkeyPatch, precision: str, accumulate: int, activation: str
) -> None:
    apart = in_one_go(monkeypatch)
    settings: dict[str, Any] = {"precision": precision, "accumulate": accumulate}
    makes = [lambda k=k: looked_into(k, activation, **settings) for k in range(3)]
    alike(makes, 1e-9 if precision == "fp64" else 1e-4)
    assert not apart


def test_a_step_that_one_refuses_is_looked_into_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    apart = in_one_go(monkeypatch)
    wild = lambda: looked_into(1, lr=1e100, guard=Skip(max_consecutive=100))  # noqa: E731
    alike([lambda: looked_into(0), wild], 1e-9)
    assert apart


def test_who_looks_at_more_looks_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    apart = in_one_go(monkeypatch)
    alike(
        [lambda k=k: looked_into(k, diagnostics=Diagnostics(2, parameters=True)) for k in range(2)], 1e-9
    )
    assert apart

"""The update check holds every optimizer against its formula, and names a step that is another."""

from __future__ import annotations

import doctest

import pytest
import torch
from broken import batch, model, same, stepping, tensors_of
from test_optimizers import CHANGES, PATHS, build

from trainer.diagnostics import check_updates, updates
from trainer.diagnostics.formulas import FORMULAS

MSE = torch.nn.MSELoss()


@pytest.mark.parametrize("path", PATHS, ids=lambda p: p.stem)
def test_every_optimizer_takes_the_step_of_its_formula(path) -> None:  # type: ignore[no-untyped-def]
    from omegaconf import OmegaConf

    for change in CHANGES:
        if change.keys() <= OmegaConf.load(path).keys():
            network = model()
            optimizer = build(path, list(network.parameters()), **change)
            assert type(optimizer).__name__ in FORMULAS, f"write the formula of {path.name}"
            check = check_updates(network, MSE, optimizer, batch())
            assert check.passed, f"{change}: {check}"
            assert check.looked_at.endswith(" 43 entries")


@pytest.mark.parametrize(
    "settings", [{"amsgrad": True}, {"maximize": True}, {"amsgrad": True, "eps": 0.1}]
)
def test_variants_of_adam(settings: dict[str, bool]) -> None:
    network = model()
    optimizer = torch.optim.Adam(network.parameters(), **settings)  # type: ignore[arg-type]
    assert check_updates(network, MSE, optimizer, batch()).passed


def test_the_state_of_a_run_counts() -> None:
    network = model()
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
    for _ in range(30):
        optimizer.zero_grad()
        MSE(network(batch()[0]), batch()[1]).backward()
        optimizer.step()
    before = tensors_of(network, optimizer)
    assert check_updates(network, MSE, optimizer, batch()).passed
    assert same(before, tensors_of(network, optimizer))


@pytest.mark.parametrize(
    ("factor", "cause"),
    [(-1.0, "climbs"), (2.0, "2 times as far"), (1.01, "another"), (0.0, "not moved")],
)
def test_a_wrong_step_is_named_with_index_and_both_values(factor: float, cause: str) -> None:
    network = model()
    optimizer = stepping(torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9), factor)
    check = check_updates(network, MSE, optimizer, batch())
    assert {f.name for f in check.failures} == {"0.weight", "0.bias", "2.weight", "2.bias"}
    first = check.failures[0]
    assert cause in first.cause
    assert first.index is not None
    got, should = (float(text.split(" ")[-1 - i]) for text, i in ((first.got, 0), (first.expected, 3)))
    assert got == pytest.approx(factor * should, rel=1e-4)


def test_one_wrong_group_is_told_from_the_others() -> None:
    network = model()
    groups = [{"params": network[0].parameters()}, {"params": network[2].parameters()}]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.1)

    def half_decayed(c, s, w, g):  # type: ignore[no-untyped-def]
        is_second = w.shape[0] == 3
        return FORMULAS["AdamW"]({**c, "weight_decay": 0.05 if is_second else 0.1}, s, w, g)

    check = check_updates(network, MSE, optimizer, batch(), formula=half_decayed)
    assert {failure.name for failure in check.failures} == {"2.weight", "2.bias"}


def test_an_optimizer_without_a_formula_is_said_not_to_be_checked() -> None:
    network = model()
    optimizer = torch.optim.Adadelta(network.parameters())
    check = check_updates(network, MSE, optimizer, batch())
    assert (check.verdict, check.passed) == ("not made", True)
    assert "Adadelta" in check.skipped


def test_the_example_in_the_documentation_runs() -> None:
    result = doctest.testmod(updates)
    assert (result.failed, result.attempted) == (0, 4)

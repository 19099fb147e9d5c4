"""The range test finds a rate that trains, and puts everything back to the bit."""

from __future__ import annotations

import doctest
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from broken import Batch, batch, model, same, tensors_of
from torch import Tensor, nn

from trainer.clipping import SPAM, ZClip
from trainer.diagnostics import find_rate, rates

MSE = nn.MSELoss()


def endless() -> Iterator[Batch]:
    while True:
        yield batch(32)


def quadratic() -> tuple[nn.Module, list[Batch]]:
    """Curvatures 1 and 0.25: gradient descent converges below the rate 2."""
    network = nn.Linear(2, 1, bias=False)
    nn.init.ones_(network.weight)
    inputs = torch.tensor([[1.0, 0.0], [0.0, 0.5]])
    return network, [(inputs, torch.zeros(2, 1))] * 200


def test_the_suggestion_lies_where_gradient_descent_converges() -> None:
    network, batches = quadratic()
    found = find_rate(network, MSE, torch.optim.SGD(network.parameters(), 0.1), batches)
    assert found.suggested is not None
    assert 1e-3 < found.suggested < 2
    assert found.smoothed[0] > found.smoothed[found.lrs.index(max(found.lrs)) // 2]


def test_the_rates_grow_geometrically_and_groups_keep_their_ratio() -> None:
    network, seen = model(), []
    groups = [
        {"params": network[0].parameters(), "lr": 0.1},
        {"params": network[2].parameters(), "lr": 0.5},
    ]
    optimizer = torch.optim.SGD(groups)  # type: ignore[arg-type]
    optimizer.register_step_pre_hook(lambda o, *_: seen.append([g["lr"] for g in o.param_groups]))
    found = find_rate(network, MSE, optimizer, endless(), min_lr=1e-5, max_lr=1e-3, steps=21)
    assert found.ended == "all 21 rates were tried"
    assert found.lrs == pytest.approx(np.geomspace(1e-5, 1e-3, 21).tolist())
    assert [rate for rate, _ in seen] == pytest.approx(found.lrs)
    assert all(second == pytest.approx(5 * first) for first, second in seen)
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.5]


def test_it_stops_where_the_loss_rises_or_is_not_finite() -> None:
    network, batches = quadratic()
    found = find_rate(network, MSE, torch.optim.SGD(network.parameters(), 0.1), batches, max_lr=1e6)
    assert "4 times its best" in found.ended
    assert found.lrs[-1] < 1e4

    def breaks(predictions: Tensor, targets: Tensor) -> Tensor:
        breaks.calls += 1  # type: ignore[attr-defined]
        return MSE(predictions, targets) * (math.nan if breaks.calls > 12 else 1.0)  # type: ignore[attr-defined]

    breaks.calls = 0  # type: ignore[attr-defined]
    found = find_rate(network, breaks, torch.optim.SGD(network.parameters(), 0.1), batches)
    assert "not finite" in found.ended
    assert len(found.losses) == 12
    assert all(map(math.isfinite, found.losses))


def test_batches_that_end_end_it_and_accumulated_ones_make_one_step() -> None:
    network = model()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    found = find_rate(network, MSE, optimizer, [batch()] * 30, steps=20, accumulate=2, max_lr=1e-3)
    assert found.ended == "the batches ended after 15 steps"


def test_a_loss_that_no_rate_lowers_has_no_suggestion() -> None:
    network = model()
    optimizer = torch.optim.SGD(network.parameters(), 0.1, maximize=True)
    assert find_rate(network, MSE, optimizer, endless(), max_lr=0.1).suggested is None


def test_a_negative_loss_is_no_rise() -> None:
    network, batches = quadratic()

    def shifted(predictions: Tensor, targets: Tensor) -> Tensor:
        return MSE(predictions, targets) - 10

    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    found = find_rate(network, shifted, optimizer, batches)
    assert found.suggested is not None
    assert found.lrs[-1] > 1


@pytest.mark.parametrize("fused", [True, False])
def test_everything_is_put_back_to_the_bit_and_the_run_goes_on(fused: bool) -> None:
    runs = []
    for looks in (False, True):
        network = model(nn.BatchNorm1d(5), nn.Dropout(0.5))
        optimizer = torch.optim.AdamW(network.parameters(), lr=0.01, fused=fused)
        spam, clip = SPAM(every=7, warmup=3), ZClip(warmup=3)
        spam.bind(network, optimizer)
        for number in range(6):
            if looks and number == 3:
                before = tensors_of(network, optimizer)
                states = repr((clip.state_dict(), spam.state_dict()))
                generator = torch.get_rng_state()
                for used in (clip, spam):
                    find_rate(network, MSE, optimizer, endless(), clip=used, steps=20)  # type: ignore[arg-type]
                assert same(before, tensors_of(network, optimizer))
                assert repr((clip.state_dict(), spam.state_dict())) == states
                assert torch.equal(generator, torch.get_rng_state())
            optimizer.zero_grad()
            MSE(network(batch()[0]), batch()[1]).backward()
            optimizer.step()
        runs.append(tensors_of(network, optimizer))
    assert same(*runs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"min_lr": 0.0}, "min_lr must be > 0"),
        ({"min_lr": 1.0, "max_lr": 1.0}, "max_lr must be > 1"),
        ({"steps": 9}, "steps must be a whole number >= 10"),
    ],
)
def test_a_range_that_is_none_is_refused(settings: dict[str, float], message: str) -> None:
    network = model()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    with pytest.raises(ValueError, match=f"^{message}"):
        find_rate(network, MSE, optimizer, endless(), **settings)  # type: ignore[arg-type]


def test_the_example_in_the_documentation_runs() -> None:
    result = doctest.testmod(rates)
    assert (result.failed, result.attempted) == (0, 5)

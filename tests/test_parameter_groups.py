"""Which parameters decay, and that nothing else about a run depends on it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from commands import composed
from torch import nn

from trainer.clipping import ClipByNorm
from trainer.data.random import random_regression
from trainer.loop import Trainer
from trainer.optimizers import parameter_groups


def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Embedding(7, 4), nn.Conv1d(3, 5, 2), nn.BatchNorm1d(5), nn.LayerNorm(3), nn.Linear(3, 2)
    )


def names(parameters: list[Any], net: nn.Module) -> list[str]:
    known = {id(parameter): name for name, parameter in net.named_parameters()}
    return [known[id(parameter)] for parameter in parameters]


def test_biases_and_norms_do_not_decay_and_everything_else_does() -> None:
    net = model()
    matrices, vectors = parameter_groups([net], 0.01)
    assert names(matrices["params"], net) == ["0.weight", "1.weight", "4.weight"]  # type: ignore[index]
    assert "weight_decay" not in matrices  # the optimizer's own
    kept = ["1.bias", "2.weight", "2.bias", "3.weight", "3.bias", "4.bias"]
    assert names(vectors["params"], net) == kept  # type: ignore[index]
    assert vectors["weight_decay"] == 0  # type: ignore[index, call-overload]


@pytest.mark.parametrize(("weight_decay", "decay"), [(0, "matrices"), (0.0, "all"), (0.1, "all")])
def test_there_is_one_group_where_all_decay_alike(weight_decay: float, decay: str) -> None:
    net = model()
    assert parameter_groups([net], weight_decay, decay) == list(net.parameters())


def test_what_is_shared_is_there_once_and_a_loss_may_have_parameters() -> None:
    net, loss = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), nn.Linear(3, 1)
    net[1].weight = net[0].weight
    loss.bias = net[0].bias
    groups: Any = parameter_groups([net, loss, lambda a, b: a], 0.1)
    assert [len(group["params"]) for group in groups] == [2, 2]
    torch.optim.AdamW(groups)  # which refuses what is in two groups


def test_a_group_that_would_be_empty_is_not_there() -> None:
    (group,) = parameter_groups([nn.Linear(3, 3, bias=False)], 0.1)
    assert "weight_decay" not in group
    (group,) = parameter_groups([nn.LayerNorm(3)], 0.1)
    assert group["weight_decay"] == 0  # type: ignore[index, call-overload]


@pytest.mark.parametrize("bad", ["biases", None, True])
def test_an_unknown_choice_is_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match=r"^decay must be one of matrices, all, got "):
        parameter_groups([model()], 0.1, bad)


@pytest.mark.parametrize(
    ("arguments", "decays"),
    [
        ("", [0.01, 0.0]),
        ("decay=all", [0.01]),
        ("optimizer.weight_decay=0", [0]),
        ("optimizer=adam", [0.0]),
        ("optimizer=sgd optimizer.weight_decay=1e-4", [1e-4, 0.0]),
        ("optimizer=muon", [0.01, 0.01, 0.0]),
    ],
)
def test_a_run_has_the_groups_that_its_config_asks_for(arguments: str, decays: list[float]) -> None:
    (job,) = composed(f"python train.py data=random model=mlp loss=mse {arguments}".strip())
    groups = job.prepare().trainer.optimizer.param_groups
    assert [group["weight_decay"] for group in groups] == decays
    assert len({group["lr"] for group in groups}) == 1


@pytest.mark.parametrize("clip", [None, ClipByNorm(1e9)])
def test_two_groups_take_the_steps_that_two_optimizers_would(clip: ClipByNorm | None) -> None:
    data = random_regression(96, 3, 1, val_samples=0, batch_size=16)

    def net() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))

    first = net()
    groups = parameter_groups([first], 0.3)
    optimizer = torch.optim.AdamW(groups, 0.01, weight_decay=0.3, fused=True)
    Trainer(first, nn.MSELoss(), optimizer, clip=clip, max_epochs=3).fit(data)
    second = net()
    apart = (
        [p for p in second.parameters() if p.dim() == 2],
        [p for p in second.parameters() if p.dim() == 1],
    )
    pair = [torch.optim.AdamW(p, 0.01, weight_decay=d) for p, d in zip(apart, (0.3, 0.0), strict=True)]
    for epoch in range(3):
        for inputs, targets in data.batches(epoch):
            nn.functional.mse_loss(second(inputs), targets).backward()
            for each in pair:
                each.step()
                each.zero_grad()
    for a, b in zip(first.parameters(), second.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)

"""The accumulation check passes every loss that is a mean, under every clip, and no other."""

from __future__ import annotations

import doctest
from collections.abc import Callable
from typing import Any

import pytest
import torch
from broken import batch, model, same, tensors_of
from torch import nn

from losses.cross_entropy import CrossEntropy
from trainer import clipping
from trainer.diagnostics import accumulation, check_accumulation

CLIPS: dict[str, Callable[[], Any]] = {
    "norm": lambda: clipping.ClipByNorm(0.01),
    "value": lambda: clipping.ClipByValue(0.01),
    "layers": lambda: clipping.ClipByLayerNorm(0.01),
    "agc": lambda: clipping.AGC(skip_head=False),
    "autoclip": lambda: clipping.AutoClip(),
    "zclip": lambda: clipping.ZClip(max_norm=0.01),
    "adagc": lambda: clipping.AdaGC(max_norm=0.01),
    "spam": lambda: clipping.SPAM(every=1, warmup=0, max_value=0.01),
}


@pytest.mark.parametrize("name", CLIPS)
def test_every_clip_comes_after_all_parts_and_keeps_its_state(name: str) -> None:
    network, clip = model(nn.BatchNorm1d(5), nn.Dropout(0.5)), CLIPS[name]()
    optimizer = torch.optim.Adam(network.parameters())
    if hasattr(clip, "bind"):
        clip.bind(network, optimizer)
    nn.MSELoss()(network(batch()[0]), batch()[1]).backward()
    clip([p.grad for p in network.parameters() if p.grad is not None], torch.tensor(2.0))
    optimizer.step()
    before, state = tensors_of(network, optimizer), repr(clip.state_dict())
    check = check_accumulation(network, nn.MSELoss(), optimizer, batch(5), clip=clip, parts=3)
    assert check.passed, str(check)
    assert check.looked_at == "5 samples in 3 parts and in one, clipped"
    assert same(before, tensors_of(network, optimizer))
    assert repr(clip.state_dict()) == state


def test_a_sum_is_named_with_index_and_both_values() -> None:
    network = model()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    check = check_accumulation(network, nn.MSELoss(reduction="sum"), optimizer, batch(6))
    assert {failure.name for failure in check.failures} == {"0.weight", "0.bias", "2.weight", "2.bias"}
    first = check.failures[0]
    assert first.index is not None
    got, expected = float(first.got.split(" ")[0]), float(first.expected.split(" ")[0])
    assert got == pytest.approx(expected / 2, rel=1e-4)
    assert "mean over the samples" in first.cause


def test_a_mean_over_labels_that_count_weighs_parts_wrongly() -> None:
    network = model()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    check = check_accumulation(network, CrossEntropy(), optimizer, (batch()[0], labels))
    assert check.passed
    labels[:2] = -100
    assert not check_accumulation(network, CrossEntropy(), optimizer, (batch()[0], labels)).passed


def test_a_single_sample_cannot_be_cut() -> None:
    network = model()
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    check = check_accumulation(network, nn.MSELoss(), optimizer, batch(1))
    assert check.verdict == "not made"


def test_the_example_in_the_documentation_runs() -> None:
    result = doctest.testmod(accumulation)
    assert (result.failed, result.attempted) == (0, 6)

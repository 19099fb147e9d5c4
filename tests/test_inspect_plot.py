"""Pictures of a run that has not begun."""

from __future__ import annotations

from pathlib import Path

import torch
from test_curves import size_of
from torch import nn

from trainer.diagnostics import Layer, layers, without_normalization
from trainer.pictures.inspect_plot import draw_activations, draw_schedule


def test_a_schedule_is_drawn_however_short(tmp_path: Path) -> None:
    for rates in ([0.1], [0.0, 0.0], [0.1 * 0.99**i for i in range(5000)]):
        size_of(draw_schedule(rates, "mine", tmp_path / "schedule.png"))


def test_with_normalization_there_are_two_panels_with_the_same_layers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    inputs = torch.randn(8, 4)
    bare = layers(without_normalization(model), inputs)
    path = draw_activations(layers(model, inputs), bare, tmp_path / "both.png")
    assert size_of(path)[0] > 1000
    changed = [a.quantiles != b.quantiles for a, b in zip(layers(model, inputs), bare, strict=True)]
    assert changed == [False, True, True, True]


def test_whatever_the_activations_are_they_are_drawn(tmp_path: Path) -> None:
    shapes = ([0.0] * 5, [1e-30] * 5, [-1e30, -1.0, 0.0, 1.0, 1e30], [float("nan")] * 5)
    for quantiles in shapes:
        one = Layer("a", "Linear", quantiles=tuple(quantiles))
        size_of(draw_activations([one], [one], tmp_path / "a.png"))
    size_of(draw_activations([], [], tmp_path / "a.png"))

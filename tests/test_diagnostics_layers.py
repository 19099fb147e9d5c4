"""Layer by layer: norms and update ratios by hand, tied and frozen parameters, units that are silent."""

from __future__ import annotations

import copy

import pytest
import torch
from states import equal
from torch import Tensor, nn

from models.rnn import RNN
from trainer.diagnostics.activations import Activations, activation_statistics
from trainer.diagnostics.clipping import cosine, shares_of_norm
from trainer.diagnostics.departures import Departures
from trainer.diagnostics.layers import layer_statistics, layers_of
from trainer.diagnostics.tensors import BINS, buckets, extremes, histogram


def test_norms_are_those_of_all_parameters_of_a_layer_together() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    model(torch.randn(5, 3, dtype=torch.float64)).square().sum().backward()
    before = copy.deepcopy(model)
    found = layer_statistics(model, torch.optim.Adam(model.parameters(), 0.1).step)
    assert found.keys() == {"0", "2"}
    for name, numbers in found.items():
        now, then = model.get_submodule(name), before.get_submodule(name)
        pairs = list(zip(now.parameters(), then.parameters(), strict=True))
        weight = torch.cat([b.flatten() for _, b in pairs]).norm()
        update = torch.cat([(a - b).flatten() for a, b in pairs]).norm()
        gradient = torch.cat([a.grad.flatten() for a, _ in pairs if a.grad is not None]).norm()
        expected = [gradient, weight, update / weight]
        torch.testing.assert_close(torch.tensor(list(numbers.values())), torch.stack(expected).float())


def test_a_tied_matrix_counts_once_and_where_it_comes_first() -> None:
    model = nn.ModuleDict({"first": nn.Embedding(5, 3), "last": nn.Linear(3, 5)})
    model["last"].weight = model["first"].weight
    layers = layers_of({"": model, "loss": nn.PReLU()})
    assert {name: len(tensors) for name, tensors in layers.items()} == {"first": 1, "last": 1, "loss": 1}


def test_a_parameter_that_no_leaf_holds_is_of_the_module_that_does() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    model.register_parameter("scale", nn.Parameter(torch.ones(1)))
    assert list(layers_of({"": model})) == ["model", "0"]


def test_what_is_frozen_is_no_layer_and_a_layer_without_gradient_has_norm_0() -> None:
    model = nn.ModuleDict(
        {"used": nn.Linear(2, 1), "unused": nn.Linear(2, 1), "frozen": nn.Linear(2, 1)}
    )
    model["frozen"].requires_grad_(False)
    model["used"](torch.ones(1, 2)).sum().backward()
    found = layer_statistics(model, torch.optim.SGD(model.parameters(), 0.1).step)
    assert found.keys() == {"used", "unused"}
    assert found["unused"]["grad_norm"] == found["unused"]["update_ratio"] == 0


def test_zero_weights_have_no_ratio() -> None:
    model = nn.Linear(2, 1, bias=False)
    nn.init.zeros_(model.weight)
    model(torch.ones(1, 2)).sum().backward()
    found = layer_statistics(model, torch.optim.SGD(model.parameters(), 0.1).step)
    assert found["model"].keys() == {"grad_norm", "weight_norm"}


def test_the_statistics_of_what_leaves_a_layer() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)).double()
    with torch.no_grad():
        model[0].bias[1] = -100.0  # type: ignore[index]  # a unit that no input wakes
    inputs = torch.randn(4, 2, 2, 2, dtype=torch.float64)
    found = activation_statistics(model, inputs)
    assert found.keys() == {"0", "1", "3"}
    for name, numbers in found.items():
        values = model[: int(name) + 1](inputs)
        expected = {"mean": values.mean(), "std": values.std(correction=0), "max": values.abs().max()}
        for what, value in expected.items():
            assert numbers[what] == pytest.approx(value.item(), rel=1e-6), (name, what)
    assert [found[name]["dead"] for name in "013"] == [0, pytest.approx(1 / 3), 0]


def test_several_calls_count_as_one_batch() -> None:
    torch.manual_seed(0)
    model, inputs = nn.Sequential(nn.Linear(3, 4), nn.ReLU()), torch.randn(6, 3)
    whole, parts = Activations(model), Activations(model)
    with whole.watching():
        model(inputs)
    with parts.watching():
        model(inputs[:2])
        model(inputs[2:])
    read = [part.by_layer(torch.cat(part.take()).detach().double().numpy()) for part in (whole, parts)]
    for what in ("mean", "std", "max"):
        assert read[0][what] == pytest.approx(read[1][what], rel=1e-5)


def test_recurrent_layers_whole_numbers_and_half_precision_are_no_trouble() -> None:
    model = RNN((5,), (7, 5), width=4)
    found = activation_statistics(model, torch.randint(7, (2, 5)))
    assert {"embedding", "layers.0", "head"} <= found.keys()
    assert activation_statistics(nn.Linear(2, 2).bfloat16(), torch.ones(3, 2).bfloat16())
    assert activation_statistics(nn.PReLU(1), torch.ones(3)).keys() == {"model"}


def test_hooks_are_gone_afterwards_even_when_the_model_raises() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(RuntimeError):
        activation_statistics(model, torch.ones(1, 3))
    assert not model._forward_hooks


def test_shares_and_angle_of_a_clipped_gradient() -> None:
    assert list(shares_of_norm({"a": 1.0, "b": 3.0, "c": 0.0}).items()) == [
        ("b", 0.9),
        ("a", 0.1),
        ("c", 0.0),
    ]
    assert shares_of_norm({"a": 0.0}) == {"a": 0.0}
    raw = [torch.tensor([3.0, 4.0]), torch.tensor([12.0])]
    assert cosine(raw, [1e-3 * gradient for gradient in raw]).item() == pytest.approx(1, abs=1e-7)
    clamped = [gradient.clamp(-1, 1) for gradient in raw]
    assert cosine(raw, clamped).item() == pytest.approx(19 / (13 * 3**0.5))


def test_histograms_are_those_of_numpy() -> None:
    torch.manual_seed(0)
    values = torch.randn(500, dtype=torch.float64)
    fields = buckets(histogram(values).tolist())
    counts = torch.histc(values, BINS).tolist()
    assert fields["num"] == 500
    assert sum(abs(a - b) for a, b in zip(fields["bucket"], counts, strict=True)) <= 2  # at an edge
    assert fields["sum_squares"] == pytest.approx(values.square().sum().item())
    assert sum(buckets(histogram(torch.full((3,), 2.0)).tolist())["bucket"]) == 3
    assert sum(buckets(histogram(torch.tensor([1.0, torch.nan, torch.inf])).tolist())["bucket"]) == 1
    assert extremes([torch.tensor([1e38, -2.0])]).tolist() == [[-2.0], [torch.tensor(1e38).item()]]


def feed(departures: Departures, ratios: list[float], losses: list[float], first: int = 0) -> list[str]:
    pairs = zip(ratios, losses, strict=True)
    said = [
        departures(first + n, {"a": ratio, "b": 1e-3}, loss) for n, (ratio, loss) in enumerate(pairs)
    ]
    return [line for line in said if line]


def test_a_layer_that_leaves_its_history_is_said_once() -> None:
    departures = Departures()
    assert feed(departures, [1e-3] * 10 + [0.1] * 3, [1.0] * 13) != []
    assert departures.count == 1
    assert departures.warnings == [{"step": 10, "layer": "a", "times": 100.0}]
    assert feed(departures, [1e-3] * 3, [1.0] * 3) == []
    assert len(feed(departures, [0.1], [1.0])) == 1  # after it was back in line, anew


@pytest.mark.parametrize("growth", [1.02, 0.9, 1.5])
def test_a_steady_schedule_is_no_departure(growth: float) -> None:
    assert feed(Departures(), [1e-6 * growth**n for n in range(60)], [1.0] * 60) == []


def test_once_the_loss_has_left_it_is_too_late_for_an_early_warning() -> None:
    departures = Departures()
    assert feed(departures, [1e-3] * 10 + [0.1], [1.0] * 10 + [100.0]) == []
    assert Departures()(0, {"a": 1.0}, calm=False) is None


def test_a_new_level_becomes_the_history() -> None:
    departures = Departures()
    assert len(feed(departures, [1e-3] * 10 + [0.1] * 30 + [10.0], [1.0] * 41)) == 2


def test_histories_are_saved_and_restored() -> None:
    ratios = [1e-3 * (1 + n % 3) for n in range(20)]
    whole, resumed = Departures(), Departures()
    feed(whole, ratios, [1.0] * 20)
    resumed.load_state_dict(whole.state_dict())
    later: list[Tensor | str | None] = []
    for departures in (whole, resumed):
        later.append(departures(20, {"a": 0.5, "b": 1e-3}, 1.0))
    assert later[0] == later[1] is not None
    assert equal(whole.state_dict(), resumed.state_dict())

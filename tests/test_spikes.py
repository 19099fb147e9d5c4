"""The spike detector: its formula, what may move it, and that ordinary curves pass it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from states import equal

from trainer.guard import Rewind, Skip
from trainer.spikes import SpikeDetector, SpikeScore

Curve = NDArray[np.float64]
STEPS = 20_000


def written(values: Sequence[float], z: float) -> float:
    """The limit as ALGORITHMS.md and the docstring write it, in float64."""
    logs = np.log(np.asarray(values, dtype=np.float64))
    deviations = np.abs(logs - np.median(logs))
    return float(np.exp(np.median(logs) + z * max(1.4826 * np.median(deviations), 0.2)))


def fed(values: Sequence[float], **settings: Any) -> SpikeDetector:
    detector = SpikeDetector(**settings)
    for value in values:
        detector.accept(value)
    return detector


def lognormal(count: int, sigma: float = 1.0, seed: int = 0) -> list[float]:
    return np.random.default_rng(seed).lognormal(0.0, sigma, count).tolist()


@pytest.mark.parametrize("z", [2.5, 8.0])
@pytest.mark.parametrize("sigma", [0.01, 0.1, 1.0, 3.0])
@pytest.mark.parametrize("count", [32, 64, 128, 640])
def test_the_limit_is_the_written_formula(z: float, sigma: float, count: int) -> None:
    values = lognormal(count, sigma)
    detector = fed(values, z=z)
    assert detector.limit == pytest.approx(written(values[-128:], z), rel=1e-12)


def test_what_was_ordinary_when_the_run_began_is_no_spike_later() -> None:
    """A late classification loss: nearly all memorised, one in a hundred as hard as on the first day."""
    detector = fed([2.3] * 32 + [1e-4] * 640)
    assert detector.limit == pytest.approx(2.3)


def test_the_limit_is_at_most_a_few_values_old() -> None:
    values = lognormal(300)
    detector = SpikeDetector()
    for count, value in enumerate(values, start=1):
        detector.accept(value)
        latest = count - count % 32
        if count >= 32:
            assert detector.limit == pytest.approx(written(values[:latest][-128:], 8.0), rel=1e-12)


@pytest.mark.parametrize("least", [1, 16, 32, 100])
def test_there_is_no_limit_before_the_window_has_enough(least: int) -> None:
    detector = SpikeDetector(least=least)
    for count, value in enumerate(lognormal(128), start=1):
        detector.accept(value)
        if count < least:
            assert detector.limit == math.inf
    assert math.isfinite(detector.limit)


@pytest.mark.parametrize("window", [2, 10, 16, 33])
def test_a_short_window_finds_spikes_too(window: int) -> None:
    values = lognormal(64)
    detector = fed(values, window=window, least=min(32, window))
    assert detector.limit == pytest.approx(written(values[-window:], 8.0), rel=1e-12)


def test_a_steady_run_lets_pass_what_is_below_the_floor() -> None:
    detector = fed([0.7] * 64)
    assert detector.limit == pytest.approx(0.7 * math.exp(8 * 0.2), rel=1e-12)
    assert 4.95 * 0.7 < detector.limit < 5 * 0.7


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_value_without_a_logarithm_gives_no_limit(value: float) -> None:
    detector = fed([1.0] * 63 + [value])
    assert detector.limit == math.inf
    for _ in range(128):
        detector.accept(1.0)
    assert math.isfinite(detector.limit)  # it has left the window


@pytest.mark.parametrize("values", [[1e-320] * 64, [1e308] * 64, [1e-300, 1e300] * 32])
def test_the_ends_of_the_range_give_a_limit_without_a_warning(values: list[float]) -> None:
    limit = fed(values).limit
    assert limit > max(values)
    assert not math.isnan(limit)


def test_infinite_z_detects_nothing() -> None:
    assert fed([1.0] * 256, z=math.inf).limit == math.inf


@pytest.mark.parametrize("policy", [Skip, Rewind])
def test_what_was_refused_never_moves_the_limit(policy: Callable[..., Skip]) -> None:
    guards = [policy(spike_z=8.0), policy(spike_z=8.0)]
    refused = [math.nan, math.inf, -math.inf, 1e9]
    for step, value in enumerate(lognormal(300, 0.3)):
        for guard in guards:
            guard.settle(value, 2 * value, False)
        if step % 3 == 0 and step > 40:
            bad = refused[step // 3 % 4]
            guards[1].settle(bad, 1.0, True)
            guards[1].settle(value, bad, True)
    plain, disturbed = guards
    assert disturbed.skipped == 2 * 86
    assert equal(disturbed.losses.state_dict(), plain.losses.state_dict())
    assert equal(disturbed.norms.state_dict(), plain.norms.state_dict())
    assert np.isfinite([*disturbed.losses.values, *disturbed.norms.values]).all()


@pytest.mark.parametrize("cut", [0, 1, 31, 32, 40, 127, 128, 200])
def test_a_window_cut_anywhere_and_restored_goes_on_the_same(cut: int) -> None:
    values = lognormal(256)
    whole, first, second = SpikeDetector(), fed(values[:cut]), SpikeDetector()
    second.load_state_dict(first.state_dict())
    for step, value in enumerate(values):
        whole.accept(value)
        if step >= cut:
            second.accept(value)
            assert second.limit == whole.limit
    assert equal(second.state_dict(), whole.state_dict())


def test_a_saved_window_does_not_change_with_the_detector() -> None:
    detector = fed(lognormal(40))
    state = detector.state_dict()
    kept = state["values"].clone()
    detector.accept(9.0)
    assert equal(state["values"], kept)


def test_forgetting_starts_anew() -> None:
    detector = fed([1.0] * 64)
    detector.forget()
    assert equal(detector.state_dict(), SpikeDetector().state_dict())


@pytest.mark.parametrize(
    ("argument", "value"), [("z", 0), ("z", -1.0), ("z", math.nan), ("window", 31), ("least", 0)]
)
def test_an_argument_out_of_range_is_refused(argument: str, value: Any) -> None:
    with pytest.raises(ValueError, match="spike_z" if argument == "z" else argument):
        SpikeDetector(**{argument: value})


def softplus_margins(random: np.random.Generator, margin: float, spread: float) -> Curve:
    """Batch means of a two-class cross-entropy whose margins are normal."""
    return np.log1p(np.exp(-random.normal(margin, spread, (STEPS, 32)))).mean(axis=1)


def curves(random: np.random.Generator) -> dict[str, Curve]:
    time = np.arange(STEPS)
    noise = random.lognormal(0.0, 0.2, STEPS)
    return {
        "steady norms": random.lognormal(0.0, 0.3, STEPS),
        "wild norms": random.lognormal(0.0, 1.0, STEPS),
        "exponential decay to a floor": 2 * np.exp(-time / 3000) * noise + 1e-3,
        "power law": noise / np.sqrt(1 + time),
        "gamma": random.gamma(0.5, 1.0, STEPS),
        "late classification": softplus_margins(random, 6.0, 2.5),
        "late classification, wide margins": softplus_margins(random, 10.0, 4.0),
        "uneven samples": random.lognormal(-6.0, 1.0, (STEPS, 32)).mean(axis=1),
    }


@pytest.mark.parametrize("name", curves(np.random.default_rng(0)))
def test_an_ordinary_training_curve_is_never_refused(name: str) -> None:
    detector = SpikeDetector()
    refused = 0
    for value in curves(np.random.default_rng(1))[name].tolist():
        refused += value > detector.limit
        detector.accept(value)
    assert refused == 0
    assert math.isfinite(detector.limit)


def test_heavy_tailed_samples_are_refused_at_most_once_in_five_thousand() -> None:
    """Losses of single samples that span 10⁷: a batch far out is rare, and rarely held for a spike."""
    detector = SpikeDetector()
    means = np.random.default_rng(1).lognormal(-6.0, 2.0, (STEPS, 32)).mean(axis=1)
    refused = 0
    for value in means.tolist():
        if value > detector.limit:
            refused += 1
        else:
            detector.accept(value)
    assert refused <= STEPS // 5000


@pytest.mark.parametrize("factor", [1e2, 1e6, 1e30])
@pytest.mark.parametrize("name", ["steady norms", "exponential decay to a floor", "power law"])
def test_a_spike_in_an_ordinary_curve_is_found(name: str, factor: float) -> None:
    detector = fed(curves(np.random.default_rng(1))[name][:5000].tolist())
    assert detector.values[-1] * factor > detector.limit


def published_share(values: list[float], window: int = 1000, least: int = 100) -> float:
    """OLMo 2's score as its text has it, one value after another."""
    spikes = [
        values[i] - np.mean(past) > 7 * np.std(past)
        for i in range(least, len(values))
        for past in [values[max(0, i - window) : i]]
    ]
    return float(np.mean(spikes))


@pytest.mark.parametrize("sizes", [[1] * 1500, [20] * 75, [1500], [99, 1, 1400]])
def test_the_score_is_the_published_one_however_the_values_come(sizes: list[int]) -> None:
    values = np.random.default_rng(0).lognormal(size=1500) * 1e4
    values[[50, 400, 401, 1300]] *= 1e3
    score = SpikeScore()
    for part in np.split(values, np.cumsum(sizes)[:-1]):
        score.extend(part)
    assert score.share == published_share(values.tolist())
    assert score.judged == 1400


def test_a_constant_has_no_spikes_and_what_is_not_finite_is_one() -> None:
    score = SpikeScore()
    score.extend(np.full(500, 0.1))
    assert score.share == 0
    score.extend(np.array([math.nan, math.inf]))
    assert score.share == 2 / score.judged
    assert np.isfinite(score.recent).all()


def test_a_score_goes_on_where_it_was_saved() -> None:
    values = np.random.default_rng(1).lognormal(sigma=2, size=600)
    whole, first, second = SpikeScore(), SpikeScore(), SpikeScore()
    whole.extend(values)
    first.extend(values[:333])
    second.load_state_dict(first.state_dict())
    second.extend(values[333:])
    assert equal(second.state_dict(), whole.state_dict())

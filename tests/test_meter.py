"""The meter and the norm history: means over accepted steps, quantiles, bounded memory."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from states import equal

from trainer import checkpoint
from trainer.clipping import Clipped, rescaled
from trainer.meter import Meter, NormHistory, Rows

STEPS = st.lists(
    st.tuples(st.floats(-1e6, 1e6), st.floats(0, 1e6), st.booleans()), min_size=1, max_size=40
)


def add(meter: Meter, loss: float, norm: float, refused: bool = False, **terms: float) -> None:
    """A step of float64 tensors, clipped to a norm of 1 as the loop would."""
    tensor = torch.tensor(norm, dtype=torch.float64)
    clipped = Clipped() if refused else rescaled(tensor, 1.0)
    parts = {name: torch.tensor(value, dtype=torch.float64) for name, value in terms.items()}
    meter.add(torch.tensor(loss, dtype=torch.float64), tensor, clipped, refused, parts)


def interval(meter: Meter) -> dict[str, float]:
    if meter.pending:
        meter.read()
    return meter.interval()


@settings(deadline=None, max_examples=40)
@given(steps=STEPS)
def test_an_interval_is_the_mean_over_its_accepted_steps(
    steps: list[tuple[float, float, bool]],
) -> None:
    meter = Meter()
    for loss, norm, refused in steps:
        add(meter, loss, norm, refused, half=loss / 2)
    good = np.array([(loss, norm) for loss, norm, refused in steps if not refused])
    values = interval(meter)
    if not len(good):
        assert values == {}
        return
    losses, norms = good.T
    bounded = np.where(norms > 1, norms / (norms + 1e-6), norms)
    expected = {
        "train/loss": losses.mean(),
        "train/loss/half": losses.mean() / 2,
        "grad/norm": norms.mean(),
        "grad/norm_max": norms.max(),
        "grad/norm_clipped": bounded.mean(),
        "grad/clipped": (norms > 1).mean(),
    }
    assert values.pop("grad/threshold") == 1.0
    assert values == pytest.approx(expected, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_refused_step_shows_in_no_value(bad: float) -> None:
    clean, spoilt = Meter(), Meter()
    for loss in (1.0, 2.0, 3.0):
        add(clean, loss, 2 * loss, part=loss)
        add(spoilt, loss, 2 * loss, part=loss)
        add(spoilt, bad, bad, refused=True, part=bad)
    assert interval(clean) == interval(spoilt)


def test_every_step_is_in_one_interval_only() -> None:
    meter = Meter()
    add(meter, 1.0, 1.0)
    assert interval(meter)["train/loss"] == 1.0
    assert interval(meter) == {}
    add(meter, 5.0, 1.0)
    assert interval(meter)["train/loss"] == 5.0


def test_what_was_read_earlier_still_belongs_to_the_interval() -> None:
    meter = Meter()
    for loss in (1.0, 2.0, 6.0):
        add(meter, loss, 1.0)
        meter.read()
    assert interval(meter)["train/loss"] == 3.0


def test_the_terms_keep_their_names_and_order() -> None:
    meter = Meter()
    add(meter, 6.0, 0.5, mse=1.0, l1=2.0, zeta=3.0)
    values = interval(meter)
    terms = {tag: value for tag, value in values.items() if tag.startswith("train/loss/")}
    assert list(terms.items()) == [
        ("train/loss/mse", 1.0),
        ("train/loss/l1", 2.0),
        ("train/loss/zeta", 3.0),
    ]


@pytest.mark.parametrize(
    ("clip", "after", "fraction", "threshold"),
    [
        (Clipped(), 4.0, 0.0, None),
        (Clipped(coefficient=torch.tensor(0.25), threshold=1.0), 1.0, 1.0, 1.0),
        (Clipped(coefficient=torch.tensor(1.0), threshold=9.0), 4.0, 0.0, 9.0),
        (Clipped(norm=torch.tensor(3.0), threshold=0.5), 3.0, 1.0, 0.5),
        (Clipped(norm=torch.tensor(4.0), threshold=5.0), 4.0, 0.0, 5.0),
        (Clipped(0.5, threshold=torch.tensor(2.0)), 2.0, 1.0, 2.0),
    ],
    ids=["none", "rescaled", "left alone", "clamped", "clamped nothing", "learned"],
)
def test_what_the_clip_did_is_recorded(
    clip: Clipped, after: float, fraction: float, threshold: float | None
) -> None:
    meter = Meter()
    meter.add(torch.tensor(1.0), torch.tensor(4.0), clip, False, {})
    values = interval(meter)
    recorded = [values[f"grad/{name}"] for name in ("norm", "norm_clipped", "clipped")]
    assert recorded == [4.0, after, fraction]
    assert values.get("grad/threshold") == threshold


def test_numbers_of_any_format_are_read_as_float64() -> None:
    meter = Meter()
    for dtype in (torch.bfloat16, torch.float32, torch.float64):
        value = torch.tensor(0.1, dtype=dtype)
        meter.add(value, value, Clipped(), False, {"part": value})
    values = interval(meter)
    exact = [torch.tensor(0.1, dtype=d).double().item() for d in (torch.bfloat16, torch.float32)]
    mean = pytest.approx(sum([*exact, 0.1]) / 3, rel=1e-15)
    assert values["train/loss"] == values["train/loss/part"] == values["grad/norm"] == mean


@pytest.mark.parametrize("cut", range(6))
def test_an_interval_cut_in_two_by_a_save_is_recorded_whole(tmp_path: Path, cut: int) -> None:
    whole, first, second = Meter(), Meter(), Meter()
    steps = [(0.1 * k, 0.3 * k, k in (2, 4)) for k in range(5)]
    for index, (loss, norm, refused) in enumerate(steps):
        for meter in (whole, first if index < cut else second):
            if meter is second and index == cut:
                checkpoint.save(tmp_path / "a.ckpt", {"meter": saved(first)})
                second.load_state_dict(checkpoint.load(tmp_path / "a.ckpt")["meter"])
            add(meter, loss, norm, refused, part=loss)
    last = first if cut >= len(steps) else second
    assert interval(last) == interval(whole)


def saved(meter: Meter) -> dict[str, Any]:
    if meter.pending:
        meter.read()
    return meter.state_dict()


def rows(norms: Any, refused: Any = False, factor: Any = 1.0) -> Rows:
    """What a meter reads from steps of these norms, which the clip multiplied by the factor."""
    meter, columns = Meter(), np.broadcast_arrays(norms, refused, factor)
    for norm, bad, coefficient in zip(*(column.tolist() for column in columns), strict=True):
        before, after = torch.tensor([norm, norm * coefficient], dtype=torch.float64)
        meter.add(before, before, Clipped(norm=after), bool(bad), {})
    return meter.read()


@settings(deadline=None, max_examples=40)
@given(
    norms=st.lists(st.floats(0, 1e30), min_size=1, max_size=100),
    q=st.floats(0, 1),
    chunk=st.integers(1, 30),
)
def test_the_quantiles_of_a_short_run_are_those_of_all_its_norms(
    norms: list[float], q: float, chunk: int
) -> None:
    history = NormHistory()
    for start in range(0, len(norms), chunk):
        history.extend(rows(norms[start : start + chunk]))
    assert history.quantile(q) == np.quantile(norms, q)
    assert history.largest == max(norms)
    assert history.seen == len(norms)


@pytest.mark.parametrize("count", [7, 8, 9, 16, 100, 1000])
@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_a_long_run_is_sampled_evenly_in_bounded_memory(count: int, chunk: int) -> None:
    history, norms = NormHistory(capacity=8), np.arange(count)
    for start in range(0, count, chunk):
        history.extend(rows(norms[start : start + chunk]))
        assert len(history.kept) <= 8
    assert history.kept == list(range(0, count, history.stride))
    assert len(history.kept) >= 4
    assert (history.seen, history.largest) == (count, count - 1)


def test_the_quantiles_of_a_long_run_are_near_those_of_all_its_norms() -> None:
    norms = np.random.default_rng(0).lognormal(size=20_000)
    history = NormHistory()
    history.extend(rows(norms))
    for q in (0.1, 0.5, 0.9, 0.99):
        estimate = history.quantile(q)
        assert estimate is not None
        # Five standard errors of the rank that a sample of this size gives.
        error = 5 * math.sqrt(q * (1 - q) / len(history.kept))
        assert (norms < estimate).mean() == pytest.approx(q, abs=error)


def test_the_share_of_clipped_steps_counts_every_step() -> None:
    history = NormHistory(capacity=4)
    history.extend(rows(np.ones(30), factor=np.where(np.arange(30) % 3 == 0, 0.5, 1.0)))
    assert (history.clipped, history.seen) == (10, 30)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_refused_or_non_finite_norm_enters_no_statistic(bad: float) -> None:
    history = NormHistory()
    history.extend(rows([1.0, 50.0, 3.0], refused=[0, 1, 0]))
    history.extend(rows([bad, 2.0], factor=[0.5, 1.0]))
    history.extend(rows([bad], refused=True))
    assert (history.kept, history.seen, history.largest) == ([1.0, 3.0, 2.0], 3, 3.0)
    assert history.clipped == 0


def test_without_a_norm_there_is_no_quantile() -> None:
    assert NormHistory().quantile(0.5) is None


@pytest.mark.parametrize("cut", [1, 7, 8, 9, 37, 99])
def test_a_history_that_is_saved_and_restored_goes_on_as_if_nothing_had_been(
    tmp_path: Path, cut: int
) -> None:
    norms = np.random.default_rng(1).random(100)
    whole, first, second = (NormHistory(capacity=8) for _ in range(3))
    whole.extend(rows(norms, factor=0.9))
    first.extend(rows(norms[:cut], factor=0.9))
    state = first.state_dict()
    checkpoint.save(tmp_path / "a.ckpt", state)
    first.extend(rows([9.0]))
    second.load_state_dict(state)
    assert equal(second.state_dict(), checkpoint.load(tmp_path / "a.ckpt"))
    second.extend(rows(norms[cut:], factor=0.9))
    assert equal(second.state_dict(), whole.state_dict())
    assert equal(state, checkpoint.load(tmp_path / "a.ckpt"))


def test_a_norm_that_differs_by_rounding_alone_is_not_a_clipped_step() -> None:
    """As AdaGC's does, which sums up the norms of the tensors where it is measured over the entries."""
    history = NormHistory()
    rows = np.array([[0.0, 1.0, norm, after, 0.0] for norm, after in [(1.0, 1 - 1e-7), (1.0, 0.999)]])
    history.extend(rows)
    assert history.clipped == 1

"""The closing summary: how the run ended, what the norms were, what the clip did."""

from __future__ import annotations

import json
import math
import signal
from typing import Any

import numpy as np
import pytest
import torch

from trainer.clipping import AutoClip, ClipByNorm, ClipByValue, Clipped, NoClip
from trainer.meter import Meter, NormHistory
from trainer.summary import Ending, clip_summary, norm_summary, versions


def history(norms: Any, clipped: Any = False) -> NormHistory:
    """Of steps of these norms, some of which were clipped."""
    meter, filled = Meter(), NormHistory()
    for norm, bound in zip(*np.broadcast_arrays(norms, clipped), strict=True):
        before, after = torch.tensor([norm, norm / 2 if bound else norm], dtype=torch.float64)
        meter.add(before, before, Clipped(norm=after), False, {})
    filled.extend(meter.read())
    return filled


def test_an_error_ends_a_run_as_failed_with_its_kind_and_message() -> None:
    ending = Ending.by_error(OSError(28, "No space left on device"))
    assert (ending.status, ending.signal) == ("failed", None)
    assert ending.reason == "OSError: [Errno 28] No space left on device"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_ends_a_run_as_interrupted_and_gives_its_name(number: signal.Signals) -> None:
    ending = Ending.by_signal(int(number))
    assert ending == Ending("interrupted", number.name, number)
    assert signal.Signals[ending.reason] == number  # what the exit code is made of


def test_an_impatient_interrupt_is_an_interrupt_and_no_failure() -> None:
    assert Ending.by_error(KeyboardInterrupt()) == Ending.by_signal(signal.SIGINT)


def test_the_norms_are_summed_up_as_median_p99_and_maximum() -> None:
    norms = np.random.default_rng(0).lognormal(size=501)
    expected = {"median": np.median(norms), "p99": np.quantile(norms, 0.99), "max": norms.max()}
    assert norm_summary(history(norms)) == expected


def test_without_a_committed_step_there_are_no_figures_but_valid_json() -> None:
    empty = NormHistory()
    assert norm_summary(empty) == {"median": None, "p99": None, "max": None}
    summary = clip_summary(ClipByNorm(1.0), empty)
    assert (summary["fraction"], summary["suggested_max_norm"]) == (None, None)
    assert summary["verdict"] == "no step was committed"
    json.dumps([norm_summary(empty), summary], allow_nan=False)


@pytest.mark.parametrize(
    ("share", "verdict"),
    [
        (0, "never bound"),
        (0.01, "binds only on the larger"),
        (0.5, "binds only on the larger"),
        (0.51, "rescales most steps"),
        (1, "rescales most steps"),
    ],
)
def test_the_verdict_follows_from_how_often_the_clip_bound(share: float, verdict: str) -> None:
    norms = np.arange(1.0, 101.0)
    summary = clip_summary(ClipByNorm(2.0), history(norms, norms > 100 * (1 - share)))
    assert summary["fraction"] == share
    assert summary["max_norm"] == 2.0
    assert verdict in summary["verdict"]


@pytest.mark.parametrize("clip", [NoClip(), AutoClip(), ClipByNorm(0.5), ClipByValue(0.1)])
def test_the_suggestion_would_have_bound_on_one_step_in_ten(clip: Any) -> None:
    norms = np.random.default_rng(1).lognormal(size=1000)
    summary = clip_summary(clip, history(norms))
    assert (norms > summary["suggested_max_norm"]).mean() == pytest.approx(0.1, abs=0.001)
    assert f"clip.max_norm={summary['suggested_max_norm']:.3g}" in summary["verdict"]
    assert summary["mode"] == type(clip).__name__
    assert summary["max_norm"] == (clip.max_norm if isinstance(clip, ClipByNorm) else None)


def test_the_suggestion_is_finite_whatever_was_measured() -> None:
    summary = clip_summary(NoClip(), history([1.0, math.inf, math.nan, 3.0]))
    assert summary["suggested_max_norm"] == pytest.approx(2.8)
    json.dumps(summary, allow_nan=False)


def test_the_versions_are_those_that_run() -> None:
    found = versions()
    assert found["torch"] == torch.__version__
    assert found["numpy"] == np.__version__
    assert found["python"].startswith("3.")

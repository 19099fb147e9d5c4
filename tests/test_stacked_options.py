"""Every option of conf/ that runs trained as one may have, found by glob: each is what it is alone."""

from __future__ import annotations

import copy
import itertools
from functools import cache
from typing import Any

import pytest
from commands import Composed, composed
from conftest import ROOT
from hypothesis import Phase, given, reject, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from test_ensemble import assert_equal

from trainer.build import BadInput
from trainer.ensemble import Run, Together, grouped, tried
from trainer.ensemble.whole import stackable
from trainer.targets import locate

OWN = ("clip", "guard", "optimizer", "scheduler")  # of which every run of a stack may have its own
COMMON = ("fault", "init", "loss", "model")  # which they share here, but for its numbers
OPTIONS = {
    group: {path.stem: path for path in sorted((ROOT / "conf" / group).glob("*.yaml"))}
    for group in (*OWN, *COMMON)
}
# What makes an option do something within a run so short.
LIVELY: dict[str, dict[str, Any]] = {
    "adagc": {"warmup": 3, "max_norm": 0.3},
    "autoclip": {"warmup": 3, "percentile": 50},
    "layer_norm": {"max_norm": 0.1},
    "norm": {"max_norm": 0.3},
    "spam": {"every": 12, "warmup": 3, "theta": 1500, "max_value": 0.1},
    "value": {"clip_value": 0.05},
    "zclip": {"warmup": 3, "z_threshold": 0.5},
    "noam": {"warmup": 5},
    "plateau": {"patience": 0},
    "sequential": {"lengths": [1]},
    "step": {"step_size": 1},
    "rewind": {"every": 7, "max_consecutive": 0, "recover_steps": 5, "window": 32},
    "dwa": {"window": 4},
    "lr_spike": {"factor": 1e4},
    "nan_batch": {"share": 0.05},
    "outlier_batch": {"share": 0.05},
}
RANDOM = (
    "data=random data.samples=96 data.val_samples=8 data.batch_size=8 data.features=6 data.targets=2"
)
MLP = "model=mlp model.hidden=[8]"
DIGITS, TEXT = "data=digits loss=cross_entropy", "data=text data.length=8 loss=cross_entropy"
FITTING = {  # to what does not fit the random numbers and a small MLP
    "cross_entropy": f"{DIGITS} {MLP}",
    "masked": f"data=watermark data.samples=200 {MLP}",
    "cnn": f"{DIGITS} model=cnn model.channels=4",
    "unet": "data=digits_denoise model=unet model.channels=4",
    "transformer": f"{TEXT} model=transformer model.width=8",
    "rnn": f"{TEXT} model=rnn model.width=8",
    "zero_residual": f"{TEXT} model=transformer model.width=8",
}
DRAWING = {  # models with dropout, and with BatchNorm where they have it
    "mlp-drawing": f"{RANDOM} {MLP} model.norm=batch model.dropout=0.1",
    **{f"{name}-drawing": f"{FITTING[name]} model.dropout=0.1" for name in ("cnn", "unet")},
}
FITTING |= DRAWING
LIMITS = "trainer.max_epochs=null trainer.max_steps=100 trainer.log_every=10 trainer.device=cpu"
CANNOT = {"rnn": "Batching rule not implemented"}  # why an option is not stacked
NEEDS = {"spam": {"optimizer": "adamw"}}
Options = dict[str, str]  # of each group
Member = tuple[Options, float, int]  # its options, the scale of its numbers, its seed


@cache
def base(fitting: str) -> Composed:
    command = f"python train.py diagnostics=off {LIMITS} {fitting}"
    return composed(command)[0]


@cache
def node(group: str, option: str) -> Any:
    return OmegaConf.merge(OmegaConf.load(OPTIONS[group][option]), LIVELY.get(option, {}))


def made(member: Member, limits: dict[str, Any], shared: dict[Any, Any]) -> Run:
    """A run that is ready to fit.

    Args:
        member: its learning rate is scaled, and so are its options' numbers where they may be.
        limits: changes of ``trainer``.
        shared: the data of the runs before it, by what they are up to.
    """
    options, scale, seed = member
    whole = base(next((FITTING[o] for o in options.values() if o in FITTING), f"{RANDOM} {MLP}"))
    config, choices = copy.deepcopy(whole.config), {**whole.choices, **options}
    for group, option in options.items():
        if group != "model":
            config[group] = node(group, option)
    config.seed = seed
    config.trainer.update(limits)
    config.optimizer.lr = 1e-3 * scale
    scaled = copy.deepcopy(config)
    for group in options.keys() & {*OWN, "loss"}:
        part = locate(config[group]._target_)
        free = stackable(part) if group == "loss" else config[group].keys() - {"lr"}
        for key in free:
            if isinstance(value := scaled[group].get(key), float):
                scaled[group][key] = value * scale
    try:
        job = Composed(scaled, choices).prepare()
    except BadInput:  # a number that has to stay where it is
        job = Composed(config, choices).prepare()
    return Run(job.trainer, shared.setdefault((seed, options.get("fault")), job.data))


def compare(members: list[Member], tolerance: float, **limits: Any) -> str:
    """Trains them together and alone; why they cannot be, or "" if they are equal."""
    runs, alone = ([made(m, limits, shared) for m in members] for shared in ({}, {}))
    groups, apart = grouped(runs)
    if groups != [list(range(len(runs)))]:
        return "; ".join(apart.values())
    together = Together(runs)
    if reason := tried(together).reason:
        return reason
    together.fit()
    for run, other in zip(runs, alone, strict=True):
        assert_equal(run, other.trainer, other.trainer.fit(other.data), tolerance)
    return ""


def mixture() -> list[Member]:
    """Runs that have every option between them of which each may have its own."""
    free = {group: [o for o in OPTIONS[group] if o not in NEEDS] for group in OWN}
    rows = zip(*(itertools.cycle(free[group]) for group in OWN), strict=False)
    count = max(map(len, free.values()))
    found = [dict(zip(OWN, row, strict=True)) for row in itertools.islice(rows, count)]
    found += [{**found[0], **_group_of(option), **needs} for option, needs in NEEDS.items()]
    found.append({**found[0], "scheduler": "one_cycle", "optimizer": "adamw"})  # whose betas it moves
    return [(options, 0.7 + 0.04 * k, 0) for k, options in enumerate(found)]


def _group_of(option: str) -> Options:
    return {group: option for group in OWN if option in OPTIONS[group]}


LENGTHS = [
    ("fp64", 30, 1e-9),
    pytest.param("fp64", 200, 1e-9, marks=pytest.mark.soak),
    pytest.param("fp32", 100, 1e-4, marks=pytest.mark.soak),
]


@pytest.mark.parametrize(("precision", "steps", "tolerance"), LENGTHS)
def test_every_option_that_a_run_has_of_its_own(precision: str, steps: int, tolerance: float) -> None:
    assert compare(mixture(), tolerance, precision=precision, max_steps=steps) == ""


def shared() -> list[Any]:
    """Every option that the runs of a stack share; at once those losses that are quick to try."""
    quick = OPTIONS["loss"].keys() - FITTING.keys()
    return [
        pytest.param(group, option, *values, marks=() if option in quick and first else pytest.mark.soak)
        for group in COMMON
        for option in OPTIONS[group]
        for first, values in [(True, LENGTHS[0]), *((False, more.values) for more in LENGTHS[1:])]
    ]


@pytest.mark.filterwarnings(
    "ignore:There is a performance drop"
)  # attention, which is stacked all the same
@pytest.mark.parametrize(("group", "option", "precision", "steps", "tolerance"), shared())
def test_every_option_that_they_share(
    group: str, option: str, precision: str, steps: int, tolerance: float
) -> None:
    members = [({group: option}, scale, 0) for scale in (1.0, 0.9)]
    reason = compare(members, tolerance, precision=precision, max_steps=steps)
    assert CANNOT.get(option, "") in reason
    assert bool(reason) == (option in CANNOT), reason


@pytest.mark.soak
@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("model", DRAWING)
def test_models_that_draw_and_normalize_under_options_of_their_own(model: str) -> None:
    members = [({**own, "model": model}, scale, seed) for own, scale, seed in mixture()[::3]]
    assert compare(members, 1e-9, precision="fp64", max_steps=200) == ""


@pytest.mark.soak
@settings(max_examples=20, deadline=None, derandomize=True, phases=[Phase.generate])
@given(
    st.lists(
        st.tuples(
            st.fixed_dictionaries({group: st.sampled_from([*OPTIONS[group]]) for group in OWN}),
            st.floats(0.5, 1.0),
            st.integers(0, 2),
        ),
        min_size=2,
        max_size=5,
    )
)
def test_any_mixture_of_options(drawn: list[Member]) -> None:
    members = [({**own, **NEEDS.get(own["clip"], {})}, scale, seed) for own, scale, seed in drawn]
    try:
        reason = compare(members, 1e-9, precision="fp64", max_steps=200)
    except BadInput:  # parts that no run can have together
        reject()
    assert reason == ""

"""Runs that are trained as one: each is what it is alone, whatever the others do."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from losses.combined import CombinedLoss
from models.cnn import CNN
from models.mlp import MLP
from trainer import schedulers
from trainer.clipping import (
    AGC,
    AdaGC,
    AutoClip,
    Clip,
    ClipByLayerNorm,
    ClipByNorm,
    ClipByValue,
    NoClip,
    ZClip,
)
from trainer.data.random import random_regression
from trainer.data.tensors import Data, TensorData
from trainer.ensemble import Run, Together
from trainer.guard import Skip
from trainer.loop import Trainer
from trainer.optimizers import NAdam, parameter_groups
from trainer.schedulers import Horizon

SAMPLES, BATCH = 640, 32
OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adam": lambda p, lr: torch.optim.Adam(p, lr, fused=True),
    "adamw": lambda p, lr: torch.optim.AdamW(p, lr, weight_decay=0.1, fused=True),
    "sgd": lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9, fused=True),
    "rmsprop": lambda p, lr: torch.optim.RMSprop(p, lr),
    "nadam": lambda p, lr: NAdam(p, lr),
}
CLIPS: dict[str, Callable[[float], Clip]] = {
    "none": lambda c: NoClip(),
    "norm": ClipByNorm,
    "norm1": lambda c: ClipByNorm(10 * c, 1),
    "value": ClipByValue,
    "layer": ClipByLayerNorm,
    "autoclip": lambda c: AutoClip(50, max_norm=c, warmup=3),
    "zclip": lambda c: ZClip(z_threshold=0.5, warmup=3, max_norm=c),
    "agc": AGC,
    "adagc": lambda c: AdaGC(warmup=3, max_norm=c),
}
SCHEDULES: dict[str, Callable[..., Any]] = {
    "none": schedulers.constant,
    "cosine": lambda o, h: schedulers.cosine(o, h, interval="step"),
    "plateau": lambda o, h: schedulers.plateau(o, h, patience=0),
}


def data(seed: int = 0) -> TensorData:
    return random_regression(SAMPLES, 6, 2, val_samples=40, batch_size=BATCH, seed=seed)


def trainer(
    optimizer: str = "adam",
    clip: str = "norm",
    schedule: str = "none",
    *,
    c: float = 0.3,
    lr: float = 1e-3,
    alpha: float = 0.7,
    seed: int = 0,
    steps: int = 30,
    precision: str = "fp64",
    model: Callable[[], nn.Module] = lambda: MLP((6,), (2,), hidden=(8,)),
    **more: Any,
) -> Trainer:
    torch.manual_seed(seed)
    net, loss = model(), CombinedLoss(alpha, 0.3, 0.05)
    made = OPTIMIZERS[optimizer](parameter_groups((net, loss), float(optimizer == "adamw")), lr)
    horizon = Horizon.of(SAMPLES // BATCH, 1, None, steps)
    settings = {"guard": Skip(), "max_epochs": None, "max_steps": steps, "log_every": 10, **more}
    return Trainer(
        net,
        loss,
        made,
        clip=CLIPS[clip](c),
        scheduler=SCHEDULES[schedule](made, horizon),
        seed=seed,
        device="cpu",
        precision=precision,
        **settings,
    )


def together(makes: list[Callable[[], Trainer]], shared: Data | None = None) -> list[Run]:
    runs = [Run(make(), shared or data()) for make in makes]
    if shared is None:
        one = runs[0].data
        runs = [Run(run.trainer, one) for run in runs]
    Together(runs).fit()
    return runs


def assert_equal(run: Run, alone: Trainer, summary: dict[str, Any], tolerance: float) -> None:
    """The same weights, moments, statistics, record and summary."""
    assert run.error is None
    assert run.summary is not None
    for name in ("status", "reason", "steps", "epochs", "guard"):
        assert run.summary[name] == summary[name]
    mine, other = run.trainer.state_dict(), alone.state_dict()
    close(mine, other, tolerance)


def close(mine: Any, other: Any, tolerance: float, where: str = "") -> None:
    if where in (".rng.numpy", ".rng.python", ".checkpoints.best"):
        return  # what the test has drawn before
    if "clipped" in where and tolerance > 1e-6 and "norm_clipped" not in where:
        return  # a count of norms that differ, which is up to the last bit of float32
    if isinstance(other, dict):
        assert mine.keys() == other.keys(), where
        for key, value in other.items():
            close(mine[key], value, tolerance, f"{where}.{key}")
    elif isinstance(other, list | tuple):
        assert len(mine) == len(other), where
        for place, (a, b) in enumerate(zip(mine, other, strict=True)):
            close(a, b, tolerance, f"{where}[{place}]")
    elif isinstance(other, Tensor | float):
        a, b = (torch.as_tensor(value, dtype=torch.float64) for value in (mine, other))
        scale = float(b.abs().max()) if b.numel() and b.isfinite().all() else 1.0
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance * max(scale, 1e-3), msg=where)
    else:
        assert mine == other, where


def compare(makes: list[Callable[[], Trainer]], tolerance: float, seeds: list[int]) -> None:
    """Trains them together and alone."""
    sources = {seed: data(seed) for seed in seeds}
    runs = [Run(make(), sources[seed]) for make, seed in zip(makes, seeds, strict=True)]
    Together(runs).fit()
    for run, make, seed in zip(runs, makes, seeds, strict=True):
        alone = make()
        assert_equal(run, alone, alone.fit(data(seed)), tolerance)


@pytest.mark.parametrize(
    ("precision", "steps", "tolerance"),
    [
        ("fp64", 60, 1e-9),  # three epochs, of which plateau and cosine see the ends
        ("fp32", 60, 1e-4),
        pytest.param("fp64", 200, 1e-9, marks=pytest.mark.soak),
        pytest.param("fp32", 100, 1e-4, marks=pytest.mark.soak),
    ],
)
def test_every_member_is_what_it_is_alone(precision: str, steps: int, tolerance: float) -> None:
    names = list(CLIPS)
    makes = [
        lambda k=k: trainer(
            list(OPTIMIZERS)[k % len(OPTIMIZERS)],
            names[k],
            list(SCHEDULES)[k % len(SCHEDULES)],
            c=0.1 * (k + 1),
            lr=1e-3 * (1 + k % 3),
            alpha=0.1 * k,
            steps=steps,
            precision=precision,
        )
        for k in range(len(names))
    ]
    compare(makes, tolerance, [0] * len(makes))  # type: ignore[arg-type]


def test_members_with_seeds_of_their_own_have_data_and_weights_of_their_own() -> None:
    makes = [lambda k=k: trainer(c=0.2 * (k + 1), seed=k // 2, steps=60) for k in range(4)]
    compare(makes, 1e-9, [k // 2 for k in range(4)])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "model",
    [
        lambda: MLP((6,), (2,), hidden=(8,), norm="batch"),
        lambda: MLP((6,), (2,), hidden=(8,), dropout=0.3),
    ],
    ids=["batch norm", "dropout"],
)
def test_statistics_and_dropout_are_those_of_a_run_alone(model: Callable[[], nn.Module]) -> None:
    makes = [
        lambda k=k: trainer(c=0.1 * (k + 1), lr=2e-3 * (k + 1), model=model, steps=60) for k in range(3)
    ]
    compare(makes, 1e-9, [0] * 3)  # type: ignore[arg-type]


def test_an_ordinary_step_is_the_same_whatever_way_it_is_taken() -> None:
    """The short way is for the usual clips; one member with another has all go the long."""
    usual: list[Callable[[], Trainer]] = [
        lambda k=k: trainer(c=0.2 * (k + 1), schedule="cosine", steps=80)  # type: ignore[misc]
        for k in range(3)
    ]
    short = together(usual)
    long = together([*usual, lambda: trainer(clip="zclip", steps=80)])
    for one, other in zip(short, long, strict=False):
        close(one.trainer.state_dict(), other.trainer.state_dict(), 1e-12)


@settings(max_examples=3, deadline=None, derandomize=True, phases=[Phase.generate])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(list(OPTIMIZERS)),
            st.sampled_from(list(CLIPS)),
            st.sampled_from(list(SCHEDULES)),
            st.floats(0.05, 2.0),
            st.floats(1e-4, 1e-2),
            st.floats(0.0, 1.0),
            st.integers(0, 2),
        ),
        min_size=2,
        max_size=5,
    )
)
def test_any_mixture_is_equal(drawn: list[tuple[Any, ...]]) -> None:
    makes = [
        lambda d=d: trainer(d[0], d[1], d[2], c=d[3], lr=d[4], alpha=d[5], seed=d[6]) for d in drawn
    ]
    compare(makes, 1e-9, [d[6] for d in drawn])  # type: ignore[arg-type]


def test_accumulated_batches_weigh_by_their_samples() -> None:
    makes = [lambda k=k: trainer(c=0.2 * (k + 1), accumulate=2, steps=20) for k in range(2)]
    compare(makes, 1e-9, [0, 0])  # type: ignore[arg-type]


def test_images_and_labels_stack() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(48, 1, 8, 8, generator=generator)
    labels = torch.randint(0, 3, (48,), generator=generator)

    def source() -> TensorData:
        return TensorData((images, labels), (images[:8], labels[:8]), batch_size=16, output_shape=(3,))

    def make(k: int) -> Trainer:
        torch.manual_seed(0)
        net = CNN((1, 8, 8), (3,))
        made = torch.optim.AdamW(net.parameters(), 1e-3 * (k + 1), fused=True)
        return Trainer(
            net, nn.CrossEntropyLoss(), made, max_steps=8, device="cpu", precision="fp64", log_every=4
        )

    shared = source()
    runs = [Run(make(k), shared) for k in range(2)]
    Together(runs).fit()
    for k, run in enumerate(runs):
        alone = make(k)
        assert_equal(run, alone, alone.fit(source()), 1e-9)
    assert math.isfinite(run.trainer.record.last["val/loss"])

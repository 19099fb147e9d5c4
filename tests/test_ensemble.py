"""Runs that are trained as one: each is what it is alone, whatever the others do."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from losses.combined import CombinedLoss
from models.cnn import CNN
from models.mlp import MLP
from models.rnn import RNN
from trainer import checkpoint, schedulers
from trainer.checkpoint import Checkpoints
from trainer.clipping import (
    AGC,
    AdaGC,
    AutoClip,
    Clip,
    ClipByLayerNorm,
    ClipByNorm,
    ClipByValue,
    Clipped,
    NoClip,
    ZClip,
)
from trainer.data.random import random_regression
from trainer.data.tensors import Data, TensorData
from trainer.ensemble import Run, Together, tried
from trainer.faults import NanBatch
from trainer.guard import Off, Rewind, Skip
from trainer.loop import Trainer
from trainer.optimizers import NAdam, parameter_groups
from trainer.schedulers import Horizon

SAMPLES, BATCH = 96, 32
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
    settings = {"guard": Skip(), "max_epochs": None, "max_steps": steps, "log_every": 5, **more}
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


@pytest.mark.parametrize(("precision", "steps", "tolerance"), [("fp64", 200, 1e-9), ("fp32", 100, 1e-4)])
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


def test_a_run_that_diverges_is_closed_and_the_others_do_not_notice(tmp_path: Path) -> None:
    def make(k: int) -> Trainer:
        rate = 1e-3 * (k + 1) if k < 2 else 1e200  # two of five are left: the stack is made anew
        return trainer("sgd", "none", lr=rate, guard=Off(), steps=60)

    shared = data()
    runs = [Run(make(k), shared, tmp_path / str(k)) for k in range(5)]
    Together(runs).fit()
    assert [run.summary and run.summary["status"] for run in runs] == ["completed"] * 2 + [
        "diverged"
    ] * 3
    for k, run in enumerate(runs):
        alone = make(k)
        summary = alone.fit(data(), tmp_path / f"{k}-alone")
        assert run.summary is not None
        assert run.summary["steps"] == summary["steps"]
        if k < 2:
            assert_equal(run, alone, summary, 1e-9)


def test_a_refused_step_is_that_members_alone() -> None:
    spoiled = NanBatch(0.1, seed=3).data(data(1), Horizon.of(SAMPLES // BATCH, 1, None, 60))
    runs = [
        Run(trainer(c=0.3, steps=60), data(0)),
        Run(trainer(c=0.3, seed=1, steps=60, guard=Rewind(max_consecutive=0, every=7)), spoiled),
    ]
    Together(runs).fit()
    for run, seed in zip(runs, (0, 1), strict=True):
        alone = trainer(
            c=0.3, seed=seed, steps=60, guard=Rewind(max_consecutive=0, every=7) if seed else Skip()
        )
        source = NanBatch(0.1, seed=3).data(data(1), Horizon.of(3, 1, None, 60)) if seed else data(0)
        summary = alone.fit(source)
        assert_equal(run, alone, summary, 1e-9)
        assert (summary["guard"]["skipped"] > 0) == bool(seed)


class Failing(ClipByNorm):
    """Raises at a step."""

    def __init__(self, at: int) -> None:
        super().__init__(0.3)
        self.left = at

    def __call__(self, gradients: list[Tensor], norm: Tensor) -> Clipped:
        self.left -= 1
        if self.left < 0:
            raise RuntimeError("the sensor was off")
        return super().__call__(gradients, norm)


def test_what_a_members_own_part_raises_ends_that_member(tmp_path: Path) -> None:
    shared = data()
    runs = [Run(trainer(), shared, tmp_path / str(k)) for k in range(3)]
    runs[1].trainer.clip = Failing(at=7)
    Together(runs).fit()
    assert "sensor" in str(runs[1].error)
    assert '"failed"' in (tmp_path / "1" / "summary.json").read_text()
    alone = trainer()
    summary = alone.fit(data())
    for k in (0, 2):
        assert_equal(runs[k], alone, summary, 1e-9)


def test_after_a_common_failure_each_run_goes_on_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [Run(trainer(c=0.2 * (k + 1)), data()) for k in range(2)]
    shared = runs[0].data
    runs = [Run(run.trainer, shared) for run in runs]
    group, calls = Together(runs), []

    def failing(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 10:
            raise MemoryError("no room")
        return forward(*arguments)

    forward = group.stack._one
    monkeypatch.setattr(group.stack, "_one", failing)
    with pytest.raises(MemoryError):
        group.fit()
    for k, run in enumerate(runs):
        assert 0 < run.trainer.step < 30
        run.summary = run.trainer.fit(shared)
        alone = trainer(c=0.2 * (k + 1))
        assert_equal(run, alone, alone.fit(data()), 1e-9)


def test_each_leaves_its_own_folder_which_can_be_continued(tmp_path: Path) -> None:
    shared = data()
    saves = {"checkpoints": Checkpoints(every_steps=20)}
    runs = [
        Run(trainer(c=0.1 * (k + 1), steps=30, **saves), shared, tmp_path / str(k)) for k in range(8)
    ]
    for run in runs:
        run.trainer.checkpoints = Checkpoints(every_steps=20)
    Together(runs).fit()
    alone = trainer(c=0.4, steps=30, checkpoints=Checkpoints(every_steps=20))
    alone.fit(data(), tmp_path / "alone")
    paths = [tmp_path / name / "checkpoints" / "step-00000020.ckpt" for name in ("3", "alone")]
    close(*(checkpoint.load(path) for path in paths), 1e-9)
    assert paths[0].stat().st_size < 1.2 * paths[1].stat().st_size  # its row, not the stack
    resumed = trainer(c=0.4, steps=30)
    resumed.load_state_dict(checkpoint.load(paths[0]))
    resumed.fit(data())
    close(resumed.state_dict()["model"], alone.state_dict()["model"], 1e-9)
    lines = [(tmp_path / name / "metrics.jsonl").read_text().count("\n") for name in ("3", "alone")]
    assert lines[0] == lines[1]


def test_what_cannot_be_stacked_is_found_before_anything_is_trained() -> None:
    tokens = torch.randint(0, 5, (64, 7), generator=torch.Generator().manual_seed(0))
    source = TensorData((tokens, tokens), (tokens[:0], tokens[:0]), batch_size=16, output_shape=(5, 7))

    def make() -> Trainer:
        net = RNN((7,), (5, 7))
        return Trainer(net, nn.CrossEntropyLoss(), torch.optim.Adam(net.parameters()), device="cpu")

    runs = [Run(make(), source) for _ in range(2)]
    before = [p.detach().clone() for p in runs[0].trainer.parameters]
    group = Together(runs)
    assert "it cannot be stacked" in tried(group).reason
    group.part()
    for parameter, kept in zip(runs[0].trainer.parameters, before, strict=True):
        assert torch.equal(parameter, kept)


class Counting(nn.Module):
    """Keeps a state that is neither parameter nor buffer: each pass is another."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(6, 2))
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x @ self.scale * self.calls


def test_a_model_that_is_not_the_same_in_a_stack_is_found_out() -> None:
    shared = data()
    group = Together([Run(trainer(model=Counting), shared) for _ in range(2)])
    assert "another in a stack" in tried(group).reason


def test_a_trial_changes_nothing() -> None:
    shared, model = data(), lambda: MLP((6,), (2,), hidden=(8,), norm="batch", dropout=0.2)
    runs = [Run(trainer(c=0.2 * (k + 1), model=model), shared) for k in range(2)]
    group = Together(runs)
    found = tried(group)
    assert found.reason == ""
    assert found.together > 0
    assert found.alone > 0
    group.fit()
    for k, run in enumerate(runs):
        alone = trainer(c=0.2 * (k + 1), model=model)
        assert_equal(run, alone, alone.fit(data()), 1e-9)


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

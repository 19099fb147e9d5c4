"""Runs trained as one, where one of them or all of them meet trouble, and what each leaves behind."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from test_ensemble import BATCH, SAMPLES, assert_equal, close, data, trainer
from torch import Tensor, nn

from models.mlp import MLP
from models.rnn import RNN
from trainer import checkpoint
from trainer.checkpoint import Checkpoints, newest_first
from trainer.clipping import ClipByNorm, Clipped
from trainer.data.tensors import TensorData
from trainer.diagnostics import Diagnostics
from trainer.ensemble import Run, Together, grouped, tried
from trainer.faults import NanBatch
from trainer.guard import Off, Rewind, Skip
from trainer.loop import Trainer
from trainer.schedulers import Horizon


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
        source = (
            NanBatch(0.1, seed=3).data(data(1), Horizon.of(SAMPLES // BATCH, 1, None, 60))
            if seed
            else data(0)
        )
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


def test_runs_that_were_cut_short_go_on_as_one(tmp_path: Path) -> None:
    """From the middle of an epoch; two of them were trained together, the third alone."""
    model = lambda: MLP((6,), (2,), hidden=(8,), norm="batch", dropout=0.2)  # noqa: E731
    kinds = [("adam", "norm", "cosine"), ("sgd", "zclip", "plateau"), ("adamw", "autoclip", "none")]

    def make(k: int) -> Trainer:
        saves, guard = Checkpoints(every_steps=27), Rewind(max_consecutive=0, every=7)
        return trainer(*kinds[k], c=0.2, steps=50, model=model, guard=guard, checkpoints=saves)

    shared, folders = data(), [tmp_path / str(k) for k in range(3)]
    Together([Run(make(k), shared, folders[k]) for k in (0, 1)]).fit()
    whole = [make(k) for k in range(3)]
    summaries = [one.fit(data(), tmp_path / f"{k}-whole") for k, one in enumerate(whole)]
    folders[2] = tmp_path / "2-whole"
    runs = []
    for k, folder in enumerate(folders):
        state = checkpoint.load(folder / "checkpoints" / "step-00000027.ckpt")
        one = make(k)
        one.load_state_dict(state)
        runs.append(Run(one, shared, folder, generators=state["rng"]))
    assert grouped(runs) == ([[0, 1, 2]], {})
    group = Together(runs)
    assert tried(group).reason == ""
    torch.manual_seed(5)  # something else was done between loading and training
    group.fit()
    for run, alone, summary in zip(runs, whole, summaries, strict=True):
        assert_equal(run, alone, summary, 1e-9)
        assert run.folder is not None
        lines = (run.folder / "metrics.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == [10, 20, 30, 40, 50]


def test_all_save_at_the_same_step_though_their_clocks_began_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = iter(range(10**9))
    monkeypatch.setattr(time, "monotonic", lambda: next(now))
    shared = data()
    runs = []
    for k in range(3):
        saves = Checkpoints(every_seconds=30, keep=9)
        runs.append(Run(trainer(checkpoints=saves), shared, tmp_path / str(k)))
        saves.saved_at -= 5 * k
    Together(runs).fit()
    saved = [[path.name for path in newest_first(tmp_path / str(k) / "checkpoints")] for k in range(3)]
    assert saved[0] == saved[1] == saved[2]
    assert len(saved[0]) > 1


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


def test_what_is_measured_inside_the_model_is_that_of_a_run_alone() -> None:
    def make(k: int) -> Trainer:
        model = lambda: MLP((6,), (2,), hidden=(8,), dropout=0.2)  # noqa: E731
        return trainer(c=0.2 * (k + 1), model=model, diagnostics=Diagnostics(every=2, parameters=True))

    shared = data()
    runs = [Run(make(k), shared) for k in range(2)]
    Together(runs).fit()
    for k, run in enumerate(runs):
        alone = make(k)
        assert_equal(run, alone, alone.fit(data()), 1e-9)
        assert any(tag.startswith("layers/") for tag in run.trainer.record.last)

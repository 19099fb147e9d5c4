"""Formats, layouts, compiled or not, activations kept or not: whatever is combined trains the same."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from trainer import checkpoint
from trainer.checkpoint import Checkpoints
from trainer.clipping import ClipByNorm
from trainer.computing import computed, follow_layout
from trainer.data.tensors import TensorData
from trainer.diagnostics import Diagnostics
from trainer.loop import Trainer

# How far apart, in what training has moved the weights: from accumulated parts, from float64.
CLOSE = {"fp64": (1e-12, 1e-12), "fp32": (1e-5, 1e-5), "bf16": (0.02, 0.02), "fp16": (2e-3, 2e-3)}
# A compiled model takes seconds to trace; so this is everything together, once.
COMPILED = [("fp16", "aot_eager", True, True)]
MATRIX = [*product(CLOSE, [False], [False, True], [False, True]), *COMPILED]


class Block(nn.Module):
    def __init__(self, width: int, norm: nn.Module) -> None:
        super().__init__()
        self.layer, self.norm = nn.Conv2d(width, width, 3, padding=1), norm

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.norm(self.layer(x)))


class Net(nn.Module):
    """Its samples do not see each other, and it draws nothing."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(2, 8, 3, padding=1)
        self.blocks = nn.ModuleList(Block(8, nn.GroupNorm(2, 8)) for _ in range(2))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(8 * 16, 3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """What one test compiles is not kept for the next."""
    yield
    torch.compiler.reset()


def data(batch_size: int = 8) -> TensorData:
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(24, 2, 4, 4, generator=generator), torch.randn(24, 3, generator=generator)
    return TensorData((x, y), (x[:4], y[:4]), batch_size=batch_size)


def trainer(model: nn.Module | None = None, **settings: Any) -> Trainer:
    model = model or Net()
    optimizer = torch.optim.SGD(model.parameters(), 0.5, momentum=0.9, fused=True)
    defaults: dict[str, Any] = {"clip": ClipByNorm(0.1), "max_epochs": 2, "log_every": 3}
    return Trainer(model, nn.MSELoss(), optimizer, **{**defaults, **settings})


def weights(run: Trainer) -> Tensor:
    return torch.cat([parameter.detach().double().flatten() for parameter in run.parameters])


def fitted(source: TensorData, **settings: Any) -> Trainer:
    run = trainer(**settings)
    if run.scaler is not None:
        run.scaler.scale.fill_(2.0**8)  # at which nothing overflows here: a step less is another run
    assert run.fit(source)["status"] == "completed"
    return run


@pytest.mark.parametrize(("precision", "compile", "recomputed", "channels_last"), MATRIX)
def test_a_clipped_step_is_that_of_accumulated_parts_and_of_the_plain_model(
    precision: str, compile: Any, recomputed: bool, channels_last: bool
) -> None:
    settings = {"checkpoint_activations": recomputed, "channels_last": channels_last}
    settings |= {"precision": precision, "compile": compile}
    whole = fitted(data(), **settings)
    parts = fitted(data(2), accumulate=4, **settings)
    plain = fitted(data(), precision="fp64")
    moved = torch.linalg.vector_norm(weights(plain) - weights(trainer(precision="fp64")))
    for other, close in zip((parts, plain), CLOSE[precision], strict=True):
        assert torch.linalg.vector_norm(weights(whole) - weights(other)) < close * moved
    summary = whole.ledger.standing()
    assert summary["guard/skipped"] == summary.get("scaler/overflows", 0) == 0


def test_a_compiled_run_is_watched_cut_and_continued_like_any_other(tmp_path: Path) -> None:
    def started(folder: str, start: dict[str, Any] | None = None, **settings: Any) -> Trainer:
        model = nn.Sequential(nn.Flatten(), nn.Linear(32, 8), nn.BatchNorm1d(8), nn.Dropout(0.3))
        torch.manual_seed(0)
        model.append(nn.Linear(8, 3))
        saves = Checkpoints(every_steps=3, every_seconds=None, keep=9)
        watch = Diagnostics(every=1, activations=True, histograms=True)
        run = trainer(model, checkpoints=saves, diagnostics=watch, log_every=1, **settings)
        if start is not None:
            run.load_state_dict(start)
        run.fit(data(10), tmp_path / folder)  # the last batch of an epoch is another shape
        return run

    whole = started("whole", compile="aot_eager")
    path = tmp_path / "whole" / "checkpoints" / "step-00000003.ckpt"
    rest = started("rest", checkpoint.load(path), compile="aot_eager")
    assert torch.equal(weights(whole), weights(rest))
    lines = [(tmp_path / name / "metrics.jsonl").read_text().splitlines() for name in ("whole", "rest")]
    assert lines[0][3:] == lines[1]
    tags = whole.record.last
    assert any(tag.startswith("layers/") for tag in tags)
    assert not any(tag.startswith("activations/") for tag in tags)


def test_convolutions_hand_their_layout_on_to_what_they_compute() -> None:
    run = trainer(channels_last=True)
    outputs: list[Tensor] = []
    run.model.stem.register_forward_hook(lambda module, inputs, output: outputs.append(output))
    run.fit(data())
    assert all(output.is_contiguous(memory_format=torch.channels_last) for output in outputs)
    weight = run.model.stem.weight
    tensors = [weight, weight.grad, run.optimizer.state[weight]["momentum_buffer"]]
    assert all(tensor.stride() == (18, 1, 6, 2) for tensor in tensors)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.Adagrad, torch.optim.SGD])
@pytest.mark.parametrize("there", [False, True])
def test_moments_of_another_layout_are_laid_out_anew(kind: Any, there: bool) -> None:
    """The fused kernels would take them as they lie, and train the wrong entries."""
    settings: dict[str, Any] = {"momentum": 0.9} if kind is torch.optim.SGD else {}

    def stepped(model: nn.Module, optimizer: Any) -> None:
        for number, parameter in enumerate(model.parameters()):
            generator = torch.Generator().manual_seed(number)
            gradient = torch.randn(parameter.shape, generator=generator)
            parameter.grad = torch.empty_like(parameter).copy_(gradient)
        optimizer.step()

    models = [Net(), Net()]
    optimizers = [kind(model.parameters(), lr=0.1, fused=True, **settings) for model in models]
    computed(models[there], optimizers[there], channels_last=True)
    for model, optimizer in zip(models, optimizers, strict=True):
        stepped(model, optimizer)
    optimizers[1].load_state_dict(copy.deepcopy(optimizers[0].state_dict()))
    follow_layout(optimizers[1])
    for model, optimizer in zip(models, optimizers, strict=True):
        stepped(model, optimizer)
    for one, other in zip(models[0].parameters(), models[1].parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_run_goes_on_in_another_layout() -> None:
    first = fitted(data(), precision="fp64", max_epochs=1)
    ends = []
    for channels_last in (False, True):
        run = trainer(precision="fp64", max_epochs=3, channels_last=channels_last)
        run.load_state_dict(copy.deepcopy(first.state_dict()))
        run.fit(data())
        ends.append(weights(run))
    torch.testing.assert_close(*ends, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"compile": "fast"}, "compile must be one of inductor, aot_eager, got 'fast'"),
        ({"compile": 1}, "compile must be one of inductor, aot_eager, got 1"),
        ({"channels_last": True}, "channels_last must be false for Linear, which has no 2-d conv"),
        ({"checkpoint_activations": True}, "checkpoint_activations must be false for Linear, which"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_refused(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(ValueError, match=f"^{line}"):
        trainer(nn.Linear(2, 1), **settings)


def test_without_a_compiler_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    line = (
        r"^compile must be false or aot_eager on this machine, .* C\+\+ compiler no-such-compiler, got"
    )
    for compile in (True, "inductor"):
        with pytest.raises(ValueError, match=line):
            trainer(compile=compile)
    assert trainer(compile="aot_eager")


@pytest.mark.soak
def test_code_made_for_the_device_ends_a_cut_run_bit_for_bit(tmp_path: Path) -> None:
    def started(folder: str, start: dict[str, Any] | None = None) -> Trainer:
        saves = Checkpoints(every_steps=4, every_seconds=None, keep=9)
        run = trainer(checkpoints=saves, compile=True, checkpoint_activations=True)
        if start is not None:
            run.load_state_dict(start)
        run.fit(data(10), tmp_path / folder)
        return run

    whole = started("whole")
    torch.compiler.reset()
    rest = started("rest", checkpoint.load(tmp_path / "whole" / "checkpoints" / "step-00000004.ckpt"))
    assert torch.equal(weights(whole), weights(rest))


def test_what_is_not_asked_for_leaves_the_model_alone() -> None:
    model = Net()
    assert trainer(model).forward is model
    assert model.stem.weight.is_contiguous()
    assert not any("forward" in vars(module) for module in model.modules())

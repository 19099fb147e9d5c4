"""Number formats and devices of a run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import test_losses
import test_models
import torch
from torch import nn

from trainer.data.tensors import TensorData
from trainer.loop import Trainer
from trainer.precision import AUTOCAST, PRECISIONS, Precision, pick_device
from trainer.rehearsal import rehearse

CPU = torch.device("cpu")
FORMATS = {
    "fp64": (torch.float64, torch.float64),
    "fp32": (torch.float32, torch.float32),
    "bf16": (torch.float32, torch.bfloat16),
    "fp16": (torch.float32, torch.float16),
}


def test_every_precision_has_its_formats_written_down_here() -> None:
    assert FORMATS.keys() == set(PRECISIONS)


@pytest.mark.parametrize("name", PRECISIONS)
def test_what_parameters_are_stored_and_products_computed_in(name: str) -> None:
    stored, computed = FORMATS[name]
    precision = Precision(name, CPU)
    assert precision.dtype == stored
    model = torch.nn.Linear(3, 2, dtype=precision.dtype)
    with precision.autocast():
        output = model(torch.ones(1, 3, dtype=precision.dtype))
    assert output.dtype == computed
    output.sum().backward()
    assert model.weight.grad is not None
    assert model.weight.grad.dtype == stored


def test_autocast_ends_with_the_forward_pass() -> None:
    precision = Precision("bf16", CPU)
    for _ in range(2):  # a fresh context each time: one context cannot be entered twice
        with precision.autocast():
            assert torch.is_autocast_enabled("cpu")
        assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("name", ["fp8", "FP32", "float32", "", None, 32])
def test_an_unknown_precision_is_refused_with_those_there_are(name: Any) -> None:
    with pytest.raises(ValueError, match=f"^precision must be one of {', '.join(PRECISIONS)}, got "):
        Precision(name, CPU)


def test_auto_is_cuda_where_there_is_one_else_the_cpu() -> None:
    assert pick_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert pick_device("cpu") == CPU


@pytest.mark.parametrize("name", ["tpu", "meta", "mps", "", "cuda:x", "cuda:-1", "gpu", None, 1.5])
def test_an_unknown_device_is_refused_by_name(name: Any) -> None:
    with pytest.raises(ValueError, match=r"^device must be auto, cpu, cuda or cuda:<n>, got "):
        pick_device(name)


@pytest.mark.parametrize("number", [torch.cuda.device_count(), 99])
def test_a_device_that_this_machine_lacks_is_refused_with_a_remedy(number: int) -> None:
    message = rf"^device must be one this machine has, got 'cuda:{number}' .*; use device=cpu$"
    with pytest.raises(ValueError, match=message):
        pick_device(f"cuda:{number}")


def stem(value: Any) -> str:
    return getattr(value, "stem", value)


def fitted(model: nn.Module, loss: Any, data: TensorData, precision: str) -> None:
    """Takes steps with numbers of every size that occurs, and none of them is lost."""
    parts = (model, loss) if isinstance(loss, nn.Module) else (model,)
    optimizer = torch.optim.Adam([p for part in parts for p in part.parameters()], 1e-2)
    run = Trainer(model, loss, optimizer, max_epochs=4, precision=precision, log_every=1)
    rehearse(run, data, {name: name for name in ("model", "loss", "data")})
    summary = run.fit(data)
    assert summary["status"] == "completed"
    assert summary["guard"]["skipped"] == 0
    assert (
        summary.get("scaler", {}).get("overflows", 0) < run.step
    )  # until the scale has found its place
    assert all(math.isfinite(values["last"]) for values in summary["metrics"].values())
    assert all(torch.isfinite(parameter).all() for parameter in run.parameters)


@pytest.mark.parametrize("precision", AUTOCAST)
@pytest.mark.parametrize("path", test_models.PATHS, ids=stem)
def test_every_model_trains_under_autocast(path: Path, precision: str) -> None:
    kind = test_models.kinds(path)[0]
    fitted(test_models.build(path, kind), *reversed(test_models.sources()[kind]), precision)


@pytest.mark.parametrize("precision", AUTOCAST)
@pytest.mark.parametrize("path", test_losses.PATHS, ids=stem)
def test_every_loss_trains_under_autocast(path: Path, precision: str) -> None:
    torch.manual_seed(0)
    model, inputs = nn.Conv2d(3, 3, 3, padding=1), torch.randn(test_losses.SHAPE)
    both = (inputs, test_losses.targets(path, inputs))
    data = TensorData(both, both, batch_size=2, output_shape=tuple(inputs.shape[1:]))
    fitted(model, test_losses.build(path), data, precision)

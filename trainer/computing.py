"""How a model is computed, beside in which numbers: compiled, its activations kept or not, laid out."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec

import torch
from torch import nn
from torch.optim import Optimizer

from trainer import checks
from trainer.recomputing import recompute

BACKENDS = ("inductor", "aot_eager")


def check_together(
    compile: bool | str, precision: str, detect_anomaly: bool, processes: int = 1
) -> None:
    """Refuses settings that exclude each other.

    Raises:
        ValueError: naming them.
    """
    if detect_anomaly and compile:
        raise ValueError("detect_anomaly must be false for a compiled model; use compile=false")
    if detect_anomaly and precision == "fp16":
        raise ValueError(
            "detect_anomaly must be false under precision=fp16, which now and then scales a gradient "
            "beyond its range and takes that back; use precision=bf16"
        )
    if detect_anomaly and processes > 1:
        raise ValueError(
            f"detect_anomaly must be false for {processes} processes, of which one alone would end; "
            "start it without torchrun"
        )


def modules_of(**parts: object) -> dict[str, nn.Module]:
    """Those of the parts that are modules, by name: a loss may be a function."""
    return {name: part for name, part in parts.items() if isinstance(part, nn.Module)}


def computed(
    model: nn.Module,
    optimizer: Optimizer,
    compile: bool | str = False,
    checkpoint_activations: bool = False,
    channels_last: bool = False,
) -> nn.Module:
    """What to call in the place of the model; its parameters and modes stay the model's.

    Args:
        model: on its device; it is changed where activations are not kept, and in the layout.
        optimizer: over its parameters; some have a state from the start.
        compile: True for "inductor", which makes code for the device; "aot_eager" traces and
            differentiates the model ahead and needs no compiler, but is no faster. Each shape of input
            is compiled for itself: what is computed would else depend on which shape came first, and a
            resumed run would not be the same.
        checkpoint_activations: see `recompute`.
        channels_last: keep the weights of 2-d convolutions in the order (N, H, W, C), which what they
            compute then has too.

    Raises:
        ValueError: where there is nothing to do this to, or nothing to do it with.
    """
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    backend = "inductor" if compile is True else compile
    if backend is not False:
        backend = checks.choice("compile", backend, BACKENDS, "true is inductor, false leaves it")
        _check_compiler(backend, device)
    if channels_last:
        _to_channels_last(model)
        follow_layout(optimizer)
    if checkpoint_activations:
        recompute(model)
    if backend is False:
        return model
    return torch.compile(model, backend=backend, dynamic=False)  # type: ignore[return-value]


def follow_layout(optimizer: Optimizer) -> None:
    """Lays the moments out as their parameters are: the fused kernels take both as they lie in memory,
    and would mix up the entries without a word."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            shaped = isinstance(value, torch.Tensor) and value.shape == parameter.shape
            if shaped and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _check_compiler(backend: str, device: torch.device) -> None:
    compiler = os.environ.get("CXX", "g++")
    missing = ""
    if device.type == "cpu" and not shutil.which(compiler):
        missing = f"the C++ compiler {compiler}"
    if device.type == "cuda" and find_spec("triton") is None:
        missing = "the package triton"
    if backend == "inductor" and missing:
        raise ValueError(
            f"compile must be false or aot_eager on this machine, which lacks {missing}, got {backend!r}"
        )


@torch.no_grad()
def _to_channels_last(model: nn.Module) -> None:
    images = [parameter for parameter in model.parameters() if parameter.dim() == 4]
    if not images:
        raise ValueError(
            f"channels_last must be false for {type(model).__name__}, which has no 2-d convolution"
        )
    for parameter in images:
        parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

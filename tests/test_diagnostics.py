"""The examples in the docstrings of `trainer.diagnostics` run as they stand."""

from __future__ import annotations

import doctest
import importlib
import math
import pkgutil

import pytest
import torch
from torch import nn

from trainer import diagnostics
from trainer.data.tensors import TensorData
from trainer.schedulers import Horizon, Schedule

MODULES = [module.name for module in pkgutil.iter_modules(diagnostics.__path__)]
NAMES = {"torch": torch, "nn": nn, "math": math, "TensorData": TensorData}
NAMES |= {"Horizon": Horizon, "Schedule": Schedule}


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    module = importlib.import_module(f"trainer.diagnostics.{name}")
    result = doctest.testmod(module, extraglobs=NAMES)
    assert result.failed == 0


def test_every_function_that_is_offered_has_an_example() -> None:
    for name in diagnostics.__all__:
        offered = getattr(diagnostics, name)
        if not isinstance(offered, type):
            assert ">>> " in offered.__doc__, name

"""Checks of data, model and training, each a plain function on plain PyTorch objects."""

from trainer.diagnostics.architecture import Layer, layers, without_normalization
from trainer.diagnostics.data import class_balance, describe, duplicates, inspect_data, robust_z
from trainer.diagnostics.graph import autograd_graph
from trainer.diagnostics.memory import memory
from trainer.diagnostics.schedule import learning_rates

__all__ = [
    "Layer",
    "autograd_graph",
    "class_balance",
    "describe",
    "duplicates",
    "inspect_data",
    "layers",
    "learning_rates",
    "memory",
    "robust_z",
    "without_normalization",
]

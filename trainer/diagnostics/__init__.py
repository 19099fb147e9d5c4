"""Checks of data, model and training, each a plain function on plain PyTorch objects.

What a run says of its inside, layer by layer while it trains and step by step afterwards, is here too.
"""

from trainer.diagnostics.activations import activation_statistics
from trainer.diagnostics.anomaly import Anomaly, Detector, find_anomaly
from trainer.diagnostics.architecture import Layer, layers, without_normalization
from trainer.diagnostics.data import class_balance, describe, duplicates, inspect_data, robust_z
from trainer.diagnostics.graph import autograd_graph
from trainer.diagnostics.layers import layer_statistics
from trainer.diagnostics.memory import memory
from trainer.diagnostics.schedule import learning_rates
from trainer.diagnostics.watch import Diagnostics

__all__ = [
    "Anomaly",
    "Detector",
    "Diagnostics",
    "Layer",
    "activation_statistics",
    "autograd_graph",
    "class_balance",
    "describe",
    "duplicates",
    "find_anomaly",
    "inspect_data",
    "layer_statistics",
    "layers",
    "learning_rates",
    "memory",
    "robust_z",
    "without_normalization",
]

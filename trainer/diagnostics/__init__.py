"""Checks of data, model and training, each a plain function on plain PyTorch objects.

What a run says of its inside, layer by layer while it trains and step by step afterwards, is here too.
"""

from trainer.diagnostics.accumulation import check_accumulation
from trainer.diagnostics.activations import activation_statistics
from trainer.diagnostics.anomaly import Anomaly, Detector, find_anomaly
from trainer.diagnostics.architecture import Layer, layers, without_normalization
from trainer.diagnostics.coverage import check_coverage
from trainer.diagnostics.data import class_balance, describe, duplicates, inspect_data, robust_z
from trainer.diagnostics.extremes import check_extremes
from trainer.diagnostics.finding import Check, Failure
from trainer.diagnostics.gradients import check_gradients
from trainer.diagnostics.graph import autograd_graph
from trainer.diagnostics.layers import layer_statistics
from trainer.diagnostics.memory import memory
from trainer.diagnostics.purity import check_purity
from trainer.diagnostics.rates import Rates, find_rate
from trainer.diagnostics.repeats import check_determinism, check_resume
from trainer.diagnostics.schedule import learning_rates
from trainer.diagnostics.updates import check_updates
from trainer.diagnostics.watch import Diagnostics

__all__ = [
    "Anomaly",
    "Check",
    "Detector",
    "Diagnostics",
    "Failure",
    "Layer",
    "Rates",
    "activation_statistics",
    "autograd_graph",
    "check_accumulation",
    "check_coverage",
    "check_determinism",
    "check_extremes",
    "check_gradients",
    "check_purity",
    "check_resume",
    "check_updates",
    "class_balance",
    "describe",
    "duplicates",
    "find_anomaly",
    "find_rate",
    "inspect_data",
    "layer_statistics",
    "layers",
    "learning_rates",
    "memory",
    "robust_z",
    "without_normalization",
]

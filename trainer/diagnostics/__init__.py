"""What a run says of its inside: layer by layer while it trains, and step by step afterwards.

Each check is a plain function on plain PyTorch objects too, for a notebook, with an example.
"""

from trainer.diagnostics.activations import activation_statistics
from trainer.diagnostics.anomaly import Anomaly, Detector, find_anomaly
from trainer.diagnostics.layers import layer_statistics
from trainer.diagnostics.watch import Diagnostics

__all__ = [
    "Anomaly",
    "Detector",
    "Diagnostics",
    "activation_statistics",
    "find_anomaly",
    "layer_statistics",
]

"""Trouble on purpose: what goes wrong in real training, put into a run at places that the seed decides.

A fault changes the training data or the schedule and nothing else, so that the same fault meets every
clip, guard and model alike. Validation stays clean. The same seed gives the same fault in the same
steps, also after a resume.
"""

from trainer.faults.batches import NanBatch, OutlierBatch
from trainer.faults.fault import Fault, NoFault
from trainer.faults.labels import LabelNoise
from trainer.faults.rates import LrSpike

__all__ = ["Fault", "LabelNoise", "LrSpike", "NanBatch", "NoFault", "OutlierBatch"]

"""Checks of a training, each a plain function on plain PyTorch objects."""

from trainer.diagnostics.accumulation import check_accumulation
from trainer.diagnostics.coverage import check_coverage
from trainer.diagnostics.extremes import check_extremes
from trainer.diagnostics.finding import Check, Failure
from trainer.diagnostics.gradients import check_gradients
from trainer.diagnostics.purity import check_purity
from trainer.diagnostics.rates import Rates, find_rate
from trainer.diagnostics.repeats import check_determinism, check_resume
from trainer.diagnostics.updates import check_updates

__all__ = [
    "Check",
    "Failure",
    "Rates",
    "check_accumulation",
    "check_coverage",
    "check_determinism",
    "check_extremes",
    "check_gradients",
    "check_purity",
    "check_resume",
    "check_updates",
    "find_rate",
]

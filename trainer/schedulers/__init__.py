"""Learning-rate schedules: thin factories over `torch.optim.lr_scheduler`.

Each factory takes the optimizer and the `Horizon` of the run (how many steps and epochs there will
be) and returns a `Schedule`: a stock torch scheduler plus when it moves, once a step or once an epoch;
or several of them, one after another. Formulas: α₀ is ``optimizer.lr``, t counts intervals from 0.
"""

from trainer.schedulers.decays import constant, cosine, exponential, step
from trainer.schedulers.phases import noam, one_cycle, wsd
from trainer.schedulers.schedule import INTERVALS, Horizon, Schedule
from trainer.schedulers.sequence import sequential
from trainer.schedulers.watching import plateau

__all__ = [
    "INTERVALS",
    "Horizon",
    "Schedule",
    "constant",
    "cosine",
    "exponential",
    "noam",
    "one_cycle",
    "plateau",
    "sequential",
    "step",
    "wsd",
]

"""What optimizers need beside torch's own."""

from trainer.optimizers.adagrad import Adagrad
from trainer.optimizers.groups import parameter_groups
from trainer.optimizers.muon import Muon
from trainer.optimizers.nadam import NAdam
from trainer.optimizers.settings import check_settings

__all__ = ["Adagrad", "Muon", "NAdam", "check_settings", "parameter_groups"]

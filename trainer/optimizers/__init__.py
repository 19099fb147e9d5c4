"""What optimizers need beside torch's own: checks of their settings."""

from trainer.optimizers.settings import check_settings

__all__ = ["check_settings"]

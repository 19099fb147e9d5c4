"""K runs that differ only in numbers, trained as one with a leading member axis."""

from trainer.ensemble.together import Run, Together

__all__ = ["Run", "Together"]

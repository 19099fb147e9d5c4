"""K runs that differ only in numbers, trained as one with a leading member axis."""

from trainer.ensemble.alike import chunked, grouped
from trainer.ensemble.run import Run
from trainer.ensemble.together import Together
from trainer.ensemble.trial import Trial, tried

__all__ = ["Run", "Together", "Trial", "chunked", "grouped", "tried"]

"""K runs that differ only in numbers, trained as one with a leading member axis."""

from trainer.ensemble.alike import chunked, grouped, side_by_side
from trainer.ensemble.run import Run
from trainer.ensemble.together import Together
from trainer.ensemble.trial import Trial, paces, tried

__all__ = ["Run", "Together", "Trial", "chunked", "grouped", "paces", "side_by_side", "tried"]

"""Stable training: the loop and its parts. Start at `trainer.loop.Trainer`."""

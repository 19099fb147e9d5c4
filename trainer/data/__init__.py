"""Data sources: batches as a pure function of (seed, epoch, step), so that there is no loader state."""

"""Many jobs: composed, trained side by side or as one, gathered, reported."""

"""The fault matrix; see `benchmarks.faults.__main__`."""

"""Benchmarks: each prints its figures beside its bars; none of them judges by exit status."""

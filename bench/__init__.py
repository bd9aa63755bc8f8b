"""Benchmarks against other programs, measured in one run."""

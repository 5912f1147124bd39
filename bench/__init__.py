"""Benchmarks of fastlogconv against the other ways to the same weights: `python -m bench.run --help`."""

"""Measurements of this checkout, in one table: `python -m benchmarks`. Not part of the package that
is installed."""

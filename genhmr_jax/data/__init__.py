"""Datasets, simulated and rendered people, and the input pipeline."""

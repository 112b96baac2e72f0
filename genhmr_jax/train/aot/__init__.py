"""Compilation of a training step for TPU slices that are absent, and predictions of its time."""

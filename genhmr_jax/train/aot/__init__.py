"""Compiling a training step for TPU slices that are not here, and predicting its time."""

"""Ablation sweeps: plan them, run them here or on a cluster, and collect their results."""

"""Ablation sweeps: plan, run here or on a cluster, collect."""

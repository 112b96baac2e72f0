"""The systems, one folder for each paper: network, inference and training."""

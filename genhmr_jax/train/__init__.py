"""The training loop. It knows no system."""

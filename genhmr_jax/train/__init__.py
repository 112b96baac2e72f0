"""The training loop. It does not depend on any system."""

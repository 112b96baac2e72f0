"""Building blocks of networks, independent of the task."""

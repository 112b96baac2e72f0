"""Building blocks of networks that know nothing of the task."""

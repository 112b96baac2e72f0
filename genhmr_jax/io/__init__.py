"""Files, paths, terminal and caches: what knows nothing of bodies."""

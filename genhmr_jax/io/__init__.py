"""Files, paths, terminal output and caches. Nothing here depends on bodies or networks."""

"""XLA programs kept on disk, so that the second call of the command starts at once."""

import os
from pathlib import Path


def cache_directory() -> Path:
    """$GENHMR_CACHE, or genhmr_jax in the user's cache directory ($XDG_CACHE_HOME, ~/.cache)."""
    if given := os.environ.get("GENHMR_CACHE"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "genhmr_jax"


def enable() -> Path | None:
    """Makes jax keep its compiled programs in `cache_directory()`.

    Returns:
      The directory, or None where it cannot be written to: a cache is a comfort, so that is no error.
    """
    directory = cache_directory() / "xla"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    if not os.access(directory, os.W_OK):
        return None
    import jax

    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    return directory

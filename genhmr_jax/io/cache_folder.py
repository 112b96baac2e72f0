"""The folder in which this package keeps what is slow to compute. No heavy import."""

import os
from pathlib import Path

from genhmr_jax.io.errors import InputError
from genhmr_jax.io.paths import expand


def cache_directory() -> Path | None:
    """$GENHMR_CACHE, or genhmr_jax in the user's cache directory ($XDG_CACHE_HOME, ~/.cache).

    None where there is no home directory. A relative $XDG_CACHE_HOME is ignored, as the XDG base
    directory specification requires.
    """
    try:
        if given := os.environ.get("GENHMR_CACHE"):
            return Path(expand(given)).absolute()
        general = Path(expand(os.environ.get("XDG_CACHE_HOME") or "~/.cache"))
        return (general if general.is_absolute() else Path(expand("~/.cache"))) / "genhmr_jax"
    except InputError:
        return None


def usable(directory: Path) -> bool:
    """Whether the directory exists, or can be made, and can be written to."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(directory, os.W_OK)

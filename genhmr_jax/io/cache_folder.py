"""The folder in which this package keeps what is slow to compute. No heavy import."""

import os
import stat
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
    """Whether the directory exists, or can be made, and only we can write to it.

    Its files are run: compiled programs, and numba's pickles. Therefore it must belong to us or to
    root, and other users must not be able to write to it or to replace it. (The members of its
    group may: many systems have a group for each user.)
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        own, above = directory.stat(), directory.parent.stat()
    except OSError:
        return False
    replaceable = _open_to_others(above) and not above.st_mode & stat.S_ISVTX
    return os.access(directory, os.W_OK) and not _open_to_others(own) and not replaceable


def _open_to_others(status: os.stat_result) -> bool:
    """Whether another user owns a directory, or any user can write to it."""
    if not hasattr(os, "getuid"):  # Windows
        return False
    return status.st_uid not in (0, os.getuid()) or bool(status.st_mode & stat.S_IWOTH)

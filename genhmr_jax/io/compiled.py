"""numba's compiler as this project uses it.

Threads may run side by side, and machine code is kept on disk where that is possible.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

from genhmr_jax.io.compilation_cache import cache_directory, usable
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.paths import expand


def compiled(function: Callable) -> Callable:
    """Compiles a kernel with numba, without the interpreter's lock.

    The machine code is kept in NUMBA_CACHE_DIR, beside the source, or in our own cache
    (`cache_directory`). Where none of these can be written to, or what is kept there is damaged,
    the kernel is compiled anew, in about two seconds.
    """
    kernel = numba.njit(nogil=True)(function)
    folder = _folder(Path(function.__code__.co_filename))
    if folder is None:
        return kernel
    given = numba.config.CACHE_DIR
    # numba reads it here alone. Its own last choice is "~/.cache", also where ~ cannot be expanded.
    numba.config.CACHE_DIR = folder
    try:
        kernel.enable_caching()
    except (RuntimeError, OSError):
        return kernel
    finally:
        numba.config.CACHE_DIR = given
    kernel._cache = _OptionalCache(kernel._cache)
    return kernel


def _folder(source: Path) -> str | None:
    """The folder for numba; "" is __pycache__ beside the source. None: none can be written to."""
    with contextlib.suppress(InputError):
        if numba.config.CACHE_DIR and usable(given := Path(expand(numba.config.CACHE_DIR))):
            return str(given)
    if usable(source.parent / "__pycache__"):
        return ""
    place = cache_directory()
    return str(place / "numba") if place is not None and usable(place / "numba") else None


class _OptionalCache:
    """A cache of numba whose errors (files cut short, a full disk) do not stop the program.

    All else is that of the numba cache.
    """

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def load_overload(self, *args: Any) -> Any:
        """The kept code, or None. What cannot be read is emptied, to be written again."""
        try:
            return self._cache.load_overload(*args)
        except Exception:  # a damaged pickle can raise nearly anything
            with contextlib.suppress(Exception):
                self._cache.flush()
            return None

    def save_overload(self, *args: Any) -> None:
        """Keeps the code, if that is possible."""
        with contextlib.suppress(Exception):
            self._cache.save_overload(*args)

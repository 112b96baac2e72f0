"""Compilation of kernels with numba: without the interpreter lock, and cached on disk."""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

from genhmr_jax.io.compilation_cache import cache_directory, usable
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.paths import expand


def compiled(function: Callable) -> Callable:
    """Compile a kernel with numba; it runs without the interpreter lock.

    The machine code is stored in NUMBA_CACHE_DIR, beside the source, or in our own cache
    (`cache_directory`). Where none of these can be written to, or the stored code is damaged, the
    kernel is compiled again, in about two seconds.
    """
    kernel = numba.njit(nogil=True)(function)
    folder = _folder(Path(function.__code__.co_filename))
    if folder is None:
        return kernel
    given = numba.config.CACHE_DIR
    # numba reads this value in enable_caching only. Its own last choice is "~/.cache", even where
    # ~ cannot be expanded.
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
    """The folder for numba; "" is __pycache__ beside the source. None: no folder is writable."""
    with contextlib.suppress(InputError):
        if numba.config.CACHE_DIR and usable(given := Path(expand(numba.config.CACHE_DIR))):
            return str(given)
    if usable(source.parent / "__pycache__"):
        return ""
    directory = cache_directory()
    if directory is None or not usable(directory / "numba"):
        return None
    return str(directory / "numba")


class _OptionalCache:
    """A numba cache whose errors (truncated files, a full disk) do not stop the program."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    def load_overload(self, *args: Any) -> Any:
        """The stored code, or None. A cache that cannot be read is emptied, to be written again."""
        try:
            return self._cache.load_overload(*args)
        except Exception:  # a damaged pickle can raise nearly anything
            with contextlib.suppress(Exception):
                self._cache.flush()
            return None

    def save_overload(self, *args: Any) -> None:
        """Store the code, if that is possible."""
        with contextlib.suppress(Exception):
            self._cache.save_overload(*args)

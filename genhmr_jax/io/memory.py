"""The memory of a process."""

import contextlib
import ctypes
import sys

_ARENA_MAX = -8
"""M_ARENA_MAX of mallopt, from glibc's malloc.h."""


def share_arena() -> None:
    """Let all threads allocate from one arena of glibc's malloc; elsewhere do nothing.

    By default each thread that compiles or loads a program gets an arena, which keeps the freed
    memory of that thread: 150 MiB for one photo. It must be called before threads start.
    """
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError, AttributeError):  # another C library
            ctypes.CDLL(None).mallopt(_ARENA_MAX, 1)

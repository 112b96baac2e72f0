"""numba's compiler as this project uses it: threads may run side by side, and machine code is kept on disk where that is possible."""

from collections.abc import Callable

import numba


def compiled(function: Callable) -> Callable:
    """Compiles a kernel with numba, without the interpreter's lock.

    The machine code is cached beside the source, in NUMBA_CACHE_DIR, or in the user's cache. Where none of these can be written (a
    read-only installation without a home) numba refuses; the kernel is then compiled anew in each process, in about two seconds.
    """
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:
        return numba.njit(nogil=True)(function)

"""Compilation of functions that run once in a training."""

from collections.abc import Callable
from typing import Any

import jax

from genhmr_jax.io.xla_options import compiler_options


def jit_once(function: Callable, **options: Any) -> Callable:
    """`jax.jit` for a function that runs once or twice.

    On a CPU it is compiled without optimisation: that takes a third of the time, and the seconds
    which it saves are more than the program needs. The results are the same up to rounding.

    Args:
      options: of jax.jit.
    """
    if jax.default_backend() == "cpu":
        quick = {"xla_backend_optimization_level": 0} | compiler_options()
        options = options | {"compiler_options": quick}
    return jax.jit(function, **options)

"""Options with which XLA compiles programs on a CPU."""

import jax
import jaxlib

_FIRST_WITHOUT = (0, 12)
"""The first version of jaxlib whose XLA has no other emitters, and refuses the option."""


def compiler_options() -> dict[str, bool]:
    """Options of `jax.jit` or `Lowered.compile` for programs with many small operations.

    XLA's fusion emitters make a module of LLVM of each fusion, and each takes 10 to 20 ms. The
    older emitters compile all of them together. The first `genhmr demo` then takes 27 % less
    time, and later photos take the same (docs/performance.md). The steps of a training
    are not compiled so: that of the lifter of hands takes 15 % longer then.
    """
    if jax.default_backend() != "cpu" or jaxlib.version.__version_info__[:2] >= _FIRST_WITHOUT:
        return {}
    return {"xla_cpu_use_fusion_emitters": False}

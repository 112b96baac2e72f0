"""TPU slices by name ("v5e:16x16").

Their devices exist only for the compiler, which is part of the libtpu wheel.
"""

import contextlib
import math
import os
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from genhmr_jax.io.errors import InputError
from genhmr_jax.train.aot.chips import CHIPS, Chip

# Slices that Google Cloud sells (the documentation pages named in chips.py).
SLICES = {
    "v5e": ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
    "v5p": (
        "2x2x1", "2x2x2", "2x4x4", "4x4x4", "4x4x8", "4x8x8", "8x8x8",
        "8x8x16", "8x16x16", "16x16x16",
    ),
    "v6e": ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
}  # fmt: skip


def parse(name: str) -> tuple[Chip, tuple[int, ...]]:
    """The chip of a slice such as "v5e:16x16", and the number of chips along each axis.

    Raises:
      InputError: another form, an unknown kind, or a slice that is not sold; the message has the
        nearest ones.
    """
    where = f"--topology={name}"
    found = re.fullmatch(r"(\w+):(\d+(?:x\d+){1,2})", name)
    if not found or found[1] not in CHIPS:
        kind = found[1] if found else name.split(":")[0]
        form = "is not KIND:AxB or KIND:AxBxC"
        problem = form if kind in CHIPS else f"there is no {kind!r} here"
        largest = ", ".join(f"{kind}:{SLICES[kind][-1]}" for kind in CHIPS)
        raise InputError(where, problem, f"give one of {largest}, or smaller")
    kind, shape = found[1], tuple(int(n) for n in found[2].split("x"))
    if found[2] not in SLICES[kind]:
        size = lambda text: math.prod(int(n) for n in text.split("x"))
        wanted = max(math.prod(shape), 1)
        ratio = lambda text: (abs(math.log(size(text) / wanted)), text)
        nearest = ", ".join(f"{kind}:{text}" for text in sorted(SLICES[kind], key=ratio)[:3])
        raise InputError(where, f"is no {kind} slice", f"nearest: {nearest}")
    return CHIPS[kind], shape


def devices(name: str) -> Sequence[Any]:
    """The devices of a slice, one for each chip; programs can only be compiled for them.

    Raises:
      InputError: an unknown slice, libtpu is not installed, or libtpu refuses the slice.
    """
    where = f"--topology={name}"
    chip, shape = parse(name)
    try:
        import libtpu  # noqa: F401
    except ImportError as error:
        remedy = 'pip install "jax[tpu]" (it runs on a CPU machine)'
        raise InputError("genhmr aot", "the TPU compiler is not installed", remedy) from error
    from jax.experimental import topologies

    with offline():
        try:
            found = topologies.get_topology_desc(name, "tpu").devices
        except Exception as error:  # JaxRuntimeError, RuntimeError or ValueError, by version
            problem = f"libtpu refuses it ({str(error).splitlines()[0][:200]})"
            remedy = "try a newer libtpu, or another slice"
            raise InputError(where, problem, remedy) from error
    if len(found) != math.prod(shape):
        problem = f"libtpu makes {len(found)} devices of {math.prod(shape)} chips"
        raise InputError(where, problem, f"choose {chip.name}:2x2")
    return found


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """Let libtpu load on a machine without TPU: no metadata server, no lock file.

    The lines that it prints at its start are discarded. The environment variables stay set after
    the block: libtpu reads them once, and JAX must find the same values later.
    """
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-1")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    os.environ.setdefault("TPU_MIN_LOG_LEVEL", "3")
    sys.stderr.flush()
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)

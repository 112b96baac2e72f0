"""TPU slices by name ("v5e:16x16"): devices that exist only for the compiler, from the libtpu
wheel."""

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
        "2x2x1",
        "2x2x2",
        "2x4x4",
        "4x4x4",
        "4x4x8",
        "4x8x8",
        "8x8x8",
        "8x8x16",
        "8x16x16",
        "16x16x16",
    ),
    "v6e": ("2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16"),
}


def parse(name: str) -> tuple[Chip, tuple[int, ...]]:
    """ "v5e:16x16" -> the chip and the chips along each axis.

    Raises:
      InputError: another form, an unknown kind, or a slice that is not sold; the nearest ones are
        named.
    """
    found = re.fullmatch(r"(\w+):(\d+(?:x\d+){1,2})", name)
    if not found or found[1] not in CHIPS:
        kind = found[1] if found else name.split(":")[0]
        wrong = (
            f"there is no {kind!r} here" if kind not in CHIPS else "is not KIND:AxB or KIND:AxBxC"
        )
        raise InputError(
            f"--topology={name}",
            wrong,
            f"give one of {', '.join(f'{k}:{SLICES[k][-1]}' for k in CHIPS)}, or smaller",
        )
    kind, shape = found[1], tuple(int(n) for n in found[2].split("x"))
    if found[2] not in SLICES[kind]:
        wanted = math.prod(shape)
        size = lambda text: math.prod(int(n) for n in text.split("x"))
        nearest = sorted(
            SLICES[kind], key=lambda text: (abs(math.log(size(text) / max(wanted, 1))), text)
        )[:3]
        raise InputError(
            f"--topology={name}",
            f"is no {kind} slice",
            f"nearest: {', '.join(f'{kind}:{n}' for n in nearest)}",
        )
    return CHIPS[kind], shape


def devices(name: str) -> Sequence[Any]:
    """The devices of a slice, one a chip; they can be compiled for, and nothing else.

    Raises:
      InputError: unknown slice, or libtpu is not installed or does not know it.
    """
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
        except (
            Exception
        ) as error:  # libtpu gives a JaxRuntimeError, RuntimeError or ValueError, by version
            first = str(error).splitlines()[0][:200]
            raise InputError(
                f"--topology={name}",
                f"libtpu refuses it ({first})",
                "try a newer libtpu, or another slice",
            ) from error
    if len(found) != math.prod(shape):
        raise InputError(
            f"--topology={name}",
            f"libtpu makes {len(found)} devices of {math.prod(shape)} chips",
            f"choose {chip.name}:2x2",
        )
    return found


@contextlib.contextmanager
def offline() -> Iterator[None]:
    """What libtpu needs to load on a machine without TPU: no metadata server, no lock file; and its
    start-up lines are not shown.

    The environment stays set: libtpu reads it once, and what JAX starts later must find the same.
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

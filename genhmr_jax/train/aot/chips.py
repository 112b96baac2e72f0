"""What a TPU chip can do, by the public documentation of Google Cloud, and how fast its links carry
a group's collective.

Source: https://cloud.google.com/tpu/docs/v5e, /v5p and /v6e ("Peak compute per chip (bf16)", "HBM
capacity", "HBM bandwidth", "Bidirectional inter-chip interconnect (ICI) bandwidth per chip", "Data
center network bandwidth"), read 2026. DCN of v5e is 6.4 Tbps for a pod of 256 chips; of v6e 25.6
Tbps for 256 chips; of v5p 50 Gbps a chip.
"""

import dataclasses
import math
from collections.abc import Sequence

from genhmr_jax.train.peak_flops import peak_flops

GB = 10**9
GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """Bytes, FLOP/s and bytes/s of one chip.

    Attributes:
      hbm: bytes of memory that a program may use: what libtpu's out-of-memory errors state, a
        little less than is built in.
      flops: peak bfloat16 FLOP/s.
      hbm_bandwidth: bytes/s.
      ici: bytes/s out of the chip over all its links, both directions of each link counted, as
        Google states it.
      dimensions: of the torus, each with two links.
      wraps: an axis of the torus closes to a ring when its length is a multiple of this.
      pod: chips that ICI connects; more go over DCN.
      dcn: bytes/s of one chip's share of the data centre network, one direction.
    """

    name: str
    hbm: int
    flops: float
    hbm_bandwidth: float
    ici: float
    dimensions: int
    wraps: int
    pod: int
    dcn: float

    @property
    def link(self) -> float:
        """Bytes/s of one link in one direction."""
        return self.ici / (2 * 2 * self.dimensions)


CHIPS = {
    "v5e": Chip(
        "v5e",
        int(15.75 * GIB),
        peak_flops("TPU v5e"),
        819 * GB,
        400 * GB,
        2,
        16,
        256,
        6.4e12 / 8 / 256,
    ),
    "v5p": Chip("v5p", 95 * GIB, peak_flops("TPU v5"), 2765 * GB, 1200 * GB, 3, 4, 8960, 50e9 / 8),
    "v6e": Chip(
        "v6e",
        int(31.24 * GIB),
        peak_flops("TPU v6e"),
        1638 * GB,
        800 * GB,
        2,
        16,
        256,
        25.6e12 / 8 / 256,
    ),
}


def collective_bandwidth(
    chip: Chip, shape: Sequence[int], members: Sequence[Sequence[int]]
) -> float:
    """Bytes/s that each chip of a group can send in an all-gather or reduce-scatter. A group that
    is no full box of the torus is taken as a line: one link.

    Args:
      shape: chips along each axis of the slice.
      members: coordinates of the group's chips.
    """
    extents = [
        max(m[i] for m in members) - min(m[i] for m in members) + 1 for i in range(len(shape))
    ]
    return box_bandwidth(chip, shape, extents) if math.prod(extents) == len(members) else chip.link


def box_bandwidth(chip: Chip, shape: Sequence[int], extents: Sequence[int]) -> float:
    """The same for a box of chips, all its axes at work: an axis that closes to a ring sends both
    ways, one that does not is held up by its ends, which have one link each."""
    closed = [
        extent == size and size % chip.wraps == 0
        for extent, size in zip(extents, shape, strict=True)
    ]
    return chip.link * max(
        sum(1 + ring for extent, ring in zip(extents, closed, strict=True) if extent > 1), 1
    )

"""Published figures of TPU chips, and the bandwidth of their links in a collective.

Source: https://cloud.google.com/tpu/docs/v5e, /v5p and /v6e ("Peak compute per chip (bf16)", "HBM
capacity", "HBM bandwidth", "Bidirectional inter-chip interconnect (ICI) bandwidth per chip", "Data
center network bandwidth"), read 2026. The data centre network (DCN) has 6.4 Tbps for a pod of 256
chips of v5e, 25.6 Tbps for 256 chips of v6e, and 50 Gbps for each chip of v5p.
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
      hbm: bytes of memory that a program may use, as libtpu's out-of-memory errors state it. It is
        a little less than the capacity.
      flops: peak bfloat16 FLOP/s.
      hbm_bandwidth: bytes/s.
      ici: bytes/s out of the chip over all its links. Both directions of each link count, as in
        Google's figures.
      dimensions: of the torus; each has two links.
      wraps: an axis of the torus closes to a ring if its length is a multiple of this number.
      pod: number of chips that ICI connects. Larger slices use DCN too.
      dcn: bytes/s of one chip's share of DCN, in one direction.
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
        name="v5e",
        hbm=int(15.75 * GIB),
        flops=peak_flops("TPU v5e"),
        hbm_bandwidth=819 * GB,
        ici=400 * GB,
        dimensions=2,
        wraps=16,
        pod=256,
        dcn=6.4e12 / 8 / 256,
    ),
    "v5p": Chip(
        name="v5p",
        hbm=95 * GIB,
        flops=peak_flops("TPU v5"),
        hbm_bandwidth=2765 * GB,
        ici=1200 * GB,
        dimensions=3,
        wraps=4,
        pod=8960,
        dcn=50e9 / 8,
    ),
    "v6e": Chip(
        name="v6e",
        hbm=int(31.24 * GIB),
        flops=peak_flops("TPU v6e"),
        hbm_bandwidth=1638 * GB,
        ici=800 * GB,
        dimensions=2,
        wraps=16,
        pod=256,
        dcn=25.6e12 / 8 / 256,
    ),
}


def collective_bandwidth(
    chip: Chip, shape: Sequence[int], members: Sequence[Sequence[int]]
) -> float:
    """Bytes/s that each chip of a group can send in an all-gather or reduce-scatter.

    A group that does not fill a box of the torus counts as a line, with one link.

    Args:
      chip: the chip.
      shape: chips along each axis of the slice.
      members: coordinates of the group's chips.
    """
    columns = list(zip(*members, strict=True))[: len(shape)]
    extents = [max(column) - min(column) + 1 for column in columns]
    is_box = math.prod(extents) == len(members)
    return box_bandwidth(chip, shape, extents) if is_box else chip.link


def box_bandwidth(chip: Chip, shape: Sequence[int], extents: Sequence[int]) -> float:
    """Bytes/s that each chip of a box can send, if all axes of the box are used at once.

    An axis that closes to a ring sends in both directions. An open axis is limited by the chips at
    its ends, which have one link each.
    """
    links = 0
    for extent, size in zip(extents, shape, strict=True):
        is_ring = extent == size and size % chip.wraps == 0
        if extent > 1:
            links += 2 if is_ring else 1
    return chip.link * max(links, 1)

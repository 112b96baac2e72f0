"""How fast a compiled step could be at best, and how that scales: compute, memory and network
against what a chip can do.

These are bounds and predictions, not measurements. A ring passes (n - 1)/n of an array on in an
all-gather or a reduce-scatter and twice that in an all-reduce (Thakur, Rabenseifner & Gropp 2005);
an all-to-all is bound by the middle of its longest axis.
"""

import dataclasses
import math
from collections.abc import Sequence

from genhmr_jax.train.aot.chips import Chip, box_bandwidth, collective_bandwidth
from genhmr_jax.train.aot.hlo_cost import Collective
from genhmr_jax.train.aot.topology import SLICES


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds of one step on one chip, each resource for itself."""

    compute: float
    hbm: float
    ici: float
    dcn: float = 0.0

    @property
    def overlapped(self) -> float:
        """Lower bound: everything at the same time."""
        return max(self.compute, self.hbm, self.ici, self.dcn)

    @property
    def serial(self) -> float:
        """One after the other: what a step costs when nothing overlaps, at full speed of each."""
        return self.compute + self.hbm + self.ici + self.dcn

    @property
    def bound(self) -> str:
        """What the lower bound is bound by."""
        return max(("compute", "hbm", "ici", "dcn"), key=lambda name: getattr(self, name))


def roofline(
    chip: Chip,
    flops: float,
    hbm_bytes: float,
    collectives: Sequence[Collective],
    shape: Sequence[int],
    coordinates: Sequence[Sequence[int]],
) -> Roofline:
    """Bounds of a program.

    Args:
      flops, hbm_bytes, collectives: of one chip (aot/hlo_cost.py).
      shape: chips along each axis of the slice.
      coordinates: place in the slice of each position of the mesh.
    """
    ici = sum(seconds(chip, c, shape, coordinates) for c in collectives)
    return Roofline(flops / chip.flops, hbm_bytes / chip.hbm_bandwidth, ici)


def seconds(
    chip: Chip, collective: Collective, shape: Sequence[int], coordinates: Sequence[Sequence[int]]
) -> float:
    """Time of a collective at full speed of its links. A permute is taken as one link in one
    direction."""
    if collective.kind == "collective-permute":
        return collective.sent / chip.link
    members = [tuple(coordinates[i])[: len(shape)] for i in collective.groups[0]]
    bandwidth = collective_bandwidth(chip, shape, members)
    if collective.kind == "all-to-all":
        longest = max(
            max(m[i] for m in members) - min(m[i] for m in members) + 1 for i in range(len(shape))
        )
        return collective.times * collective.bytes * max(longest, 2) / (8 * chip.link)
    return collective.sent / bandwidth


@dataclasses.dataclass(frozen=True)
class Load:
    """What each chip does in a step, whatever their number (weak scaling: the batch of a chip
    stays).

    Attributes:
      local: seconds of compute or memory, the larger.
      params: trained numbers.
      fsdp: devices that share one copy of the parameters (all of them, while there are fewer).
      accumulate: micro-batches; each gathers the parameters anew.
      bytes_aside: of memory, beside parameters, moving average and moments.
    """

    local: float
    params: int
    fsdp: int
    accumulate: int
    bytes_aside: float

    STATE_BYTES = 16  # a parameter in float32, its moving average and two moments


@dataclasses.dataclass(frozen=True)
class Point:
    """A prediction: seconds of a step by resource, efficiency = t(1)/t(n) with all traffic hidden
    where it can be, and with none."""

    chips: int
    slices: int
    ici: float
    dcn: float
    overlapped: float
    serial: float
    fits: bool


def weak_scaling(chip: Chip, load: Load, chips: int) -> Point:
    """The same batch on every chip, more chips.

    Every micro-batch, as the step is compiled, parameters are gathered over `fsdp` (forward, and
    again backward), gradients scattered over it and then summed over `data`, all in bfloat16;
    beyond a pod each chip sends its share over DCN.
    """
    slices = math.ceil(chips / chip.pod)
    inside = chips // slices
    shards = math.gcd(inside, load.fsdp)
    copies = inside // shards
    gathered = load.accumulate * load.params * 3 * 2 * (shards - 1) / shards
    summed = load.accumulate * 2 * 2 * load.params / shards * (copies - 1) / copies
    shape = slice_shape(chip, inside)
    ici = gathered / _neighbours(chip, shape, shards) + summed / _neighbours(chip, shape, copies)
    dcn = load.accumulate * 2 * 2 * load.params / inside * (slices - 1) / slices / chip.dcn
    needed = Load.STATE_BYTES * load.params / shards + load.bytes_aside
    together = load.local / max(load.local, ici + dcn)
    return Point(
        chips, slices, ici, dcn, together, load.local / (load.local + ici + dcn), needed <= chip.hbm
    )


def slice_shape(chip: Chip, chips: int) -> tuple[int, ...]:
    """The slice of that many chips; for fewer than the smallest, or none sold, a line."""
    for text in SLICES[chip.name]:
        shape = tuple(int(n) for n in text.split("x"))
        if math.prod(shape) == chips:
            return shape
    return (chips,)


def _neighbours(chip: Chip, shape: Sequence[int], count: int) -> float:
    """Bytes/s of a group of `count` chips that fill one axis of a slice after the other, the last
    axis first."""
    extents = []
    for size in reversed(shape):
        extents.append(math.gcd(size, count))
        count //= extents[-1]
    return box_bandwidth(chip, shape, extents[::-1])

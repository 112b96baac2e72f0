"""Lower bounds of the time of a compiled step, and how they scale with the number of chips.

They follow from the compute, memory and network traffic of the step and the figures of the chip.
They are predictions, not measurements. In a ring of n chips each one sends (n - 1)/n of an array in
an all-gather or a reduce-scatter, and twice that in an all-reduce (Thakur, Rabenseifner & Gropp
2005). An all-to-all is limited by the middle of its longest axis.
"""

import dataclasses
import math
from collections.abc import Sequence

from genhmr_jax.train.aot.chips import Chip, box_bandwidth, collective_bandwidth
from genhmr_jax.train.aot.hlo_cost import Collective
from genhmr_jax.train.aot.topology import SLICES


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Seconds that each resource of one chip needs for one step."""

    compute: float
    hbm: float
    ici: float
    dcn: float = 0.0

    @property
    def overlapped(self) -> float:
        """Seconds of a step in which all resources work at the same time: the lower bound."""
        return max(self.compute, self.hbm, self.ici, self.dcn)

    @property
    def serial(self) -> float:
        """Seconds of a step in which nothing overlaps, each resource at full speed."""
        return self.compute + self.hbm + self.ici + self.dcn

    @property
    def bound(self) -> str:
        """The resource that determines the lower bound."""
        return max(("compute", "hbm", "ici", "dcn"), key=lambda name: getattr(self, name))


def roofline(
    chip: Chip,
    flops: float,
    hbm_bytes: float,
    collectives: Sequence[Collective],
    shape: Sequence[int],
    coordinates: Sequence[Sequence[int]],
) -> Roofline:
    """The bounds of a program.

    Args:
      chip: the chip.
      flops, hbm_bytes, collectives: of one chip (aot/hlo_cost.py).
      shape: chips along each axis of the slice.
      coordinates: of each position of the mesh, in the slice.
    """
    ici = sum(seconds(chip, c, shape, coordinates) for c in collectives)
    return Roofline(flops / chip.flops, hbm_bytes / chip.hbm_bandwidth, ici)


def seconds(
    chip: Chip, collective: Collective, shape: Sequence[int], coordinates: Sequence[Sequence[int]]
) -> float:
    """Time of a collective at full speed of its links.

    A permute counts as one link in one direction.
    """
    if collective.kind == "collective-permute":
        return collective.sent / chip.link
    members = [tuple(coordinates[i])[: len(shape)] for i in collective.groups[0]]
    bandwidth = collective_bandwidth(chip, shape, members)
    if collective.kind == "all-to-all":
        columns = zip(*members, strict=True)
        longest = max(max(column) - min(column) + 1 for column in columns)
        return collective.times * collective.bytes * max(longest, 2) / (8 * chip.link)
    return collective.sent / bandwidth


@dataclasses.dataclass(frozen=True)
class Load:
    """The work of each chip in a step; with weak scaling it does not depend on their number.

    Attributes:
      local: seconds of compute or of memory traffic, the larger one.
      params: number of trained parameters.
      fsdp: number of devices that share one copy of the parameters; fewer devices share it all.
      accumulate: number of micro-batches; each one gathers the parameters again.
      bytes_aside: of memory for arrays other than parameters, moving average and moments.
    """

    local: float
    params: int
    fsdp: int
    accumulate: int
    bytes_aside: float

    STATE_BYTES = 16  # a parameter in float32, its moving average and two moments


@dataclasses.dataclass(frozen=True)
class Point:
    """The prediction for a number of chips.

    Attributes:
      chips: their number.
      slices: number of pods that they fill.
      ici, dcn: seconds of a step in each network.
      overlapped: efficiency t(1) / t(n) if as much traffic as possible overlaps with compute.
      serial: efficiency if nothing overlaps.
      fits: whether the state fits the memory of a chip.
    """

    chips: int
    slices: int
    ici: float
    dcn: float
    overlapped: float
    serial: float
    fits: bool


def weak_scaling(chip: Chip, load: Load, chips: int) -> Point:
    """Predict a step on `chips` chips, each with the same batch.

    As the step is compiled, each micro-batch gathers the parameters over `fsdp` (forward, and again
    backward), and scatters the gradients over it. Then it sums them over `data`. All are bfloat16.
    Between pods each chip sends its share over DCN.
    """
    # 1. How the chips are split: pods, and inside a pod shards and copies of the parameters.
    slices = math.ceil(chips / chip.pod)
    inside = chips // slices
    shards = math.gcd(inside, load.fsdp)
    copies = inside // shards
    # 2. Bytes and seconds in both networks.
    gathered = load.accumulate * load.params * 3 * 2 * (shards - 1) / shards
    summed = load.accumulate * 2 * 2 * load.params / shards * (copies - 1) / copies
    shape = slice_shape(chip, inside)
    ici = gathered / _neighbours(chip, shape, shards) + summed / _neighbours(chip, shape, copies)
    dcn = load.accumulate * 2 * 2 * load.params / inside * (slices - 1) / slices / chip.dcn
    # 3. Memory, and the efficiency.
    needed = Load.STATE_BYTES * load.params / shards + load.bytes_aside
    return Point(
        chips=chips,
        slices=slices,
        ici=ici,
        dcn=dcn,
        overlapped=load.local / max(load.local, ici + dcn),
        serial=load.local / (load.local + ici + dcn),
        fits=needed <= chip.hbm,
    )


def slice_shape(chip: Chip, chips: int) -> tuple[int, ...]:
    """The axes of the slice of that many chips; a line if no such slice is sold."""
    for text in SLICES[chip.name]:
        shape = tuple(int(n) for n in text.split("x"))
        if math.prod(shape) == chips:
            return shape
    return (chips,)


def _neighbours(chip: Chip, shape: Sequence[int], count: int) -> float:
    """Bytes/s that each chip of a group of `count` neighbours can send.

    The group fills one axis of the slice after the other, from the last axis on.
    """
    extents = []
    for size in reversed(shape):
        extents.append(math.gcd(size, count))
        count //= extents[-1]
    return box_bandwidth(chip, shape, extents[::-1])

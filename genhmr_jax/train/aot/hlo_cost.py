"""The cost of a compiled program: matrix FLOPs, collectives, and its largest arrays.

All iterations of loops count. All numbers are of one device: the text is the program that each
device runs.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

import numpy as np

from genhmr_jax.train.aot.hlo import Instruction, Module, Shape

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
# Instructions that make no array in HBM of their own: names, views, and pieces of other work.
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional"),
    *("call", "iota", "after-all", "partition-id", "replica-id", "copy-done", "async-start"),
    *("async-update", "async-done", "optimization-barrier", "opt-barrier"),
    *(kind + end for kind in KINDS for end in ("", "-start", "-done")),
}
# Parts of the name of a traced operation that are left out in reports.
_SCAFFOLD = r"jit\(.*\)|jvp\(\)|transpose\(jvp\(\)\)|while|body|closed_call|checkpoint"


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective of the program.

    Attributes:
      kind: one of KINDS.
      bytes: of the operands on one device, for one execution.
      groups: the devices that exchange data, as positions in the mesh; for a collective-permute the
        pairs (from, to).
      times: number of executions.
      op_name: the operation of the traced program that it comes from.
    """

    kind: str
    bytes: int
    groups: tuple[tuple[int, ...], ...]
    times: int
    op_name: str

    @property
    def size(self) -> int:
        """Number of devices in a group."""
        return len(self.groups[0]) if self.groups else 1

    @property
    def sent(self) -> float:
        """Bytes that each device sends in a ring, in all executions (Thakur et al. 2005).

        Of n devices, each sends n - 1 shares in an all-gather, n - 1 of n shares in a
        reduce-scatter or an all-to-all, twice that in an all-reduce, and everything in a permute.
        """
        n = self.size
        shares = {"all-gather": n - 1, "all-reduce": 2 * (n - 1) / n, "collective-permute": 1}
        return self.times * self.bytes * shares.get(self.kind, (n - 1) / n)


def collectives(module: Module) -> list[Collective]:
    """All collectives of a program.

    A collective that runs at the same time as other work appears several times in the text. It is
    returned once.
    """
    found: dict[str, Collective] = {}
    for name, instruction in module.instructions():
        kind = instruction.opcode.removesuffix("-start")
        times = module.times.get(name, 0)
        if kind not in KINDS or not times:
            continue
        # The TPU compiler writes a reduce-scatter as a fusion of an all-reduce and a slice of it.
        if kind == "all-reduce" and name.startswith("all-reduce-scatter"):
            kind = "reduce-scatter"
        size = sum(module.computations[name][operand].bytes for operand in instruction.operands)
        key = identity(module, name, instruction)
        if key not in found or found[key].times < times:
            groups = replica_groups(instruction.attributes)
            found[key] = Collective(kind, size, groups, times, instruction.op_name)
    return [c for c in found.values() if c.size > 1]


def identity(module: Module, name: str, instruction: Instruction) -> str:
    """What the pieces of one collective have in common.

    They have the same channel, operands of the same shapes, and the same groups. The channel alone
    is not enough: all collectives that XLA made itself, as when it combines some, have the channel
    1. A reduce-scatter is in one piece.
    """
    channel = re.search(r"channel_id=\d+", instruction.attributes)
    if not channel or name.startswith("all-reduce-scatter"):
        return f"{name}/{instruction.name}"
    body = module.computations[name]
    shapes = [str(shape) for operand in instruction.operands for shape in body[operand].shapes]
    return " ".join([channel[0], *shapes, str(replica_groups(instruction.attributes))])


def replica_groups(attributes: str) -> tuple[tuple[int, ...], ...]:
    """The groups of a collective, in any of the forms in which XLA writes them."""
    if pairs := re.search(r"source_target_pairs=\{(\{.*?\})\}", attributes):
        return _braces(pairs[1])
    if listed := re.search(r"replica_groups=\{(\{.*?\})\}", attributes):
        return _braces(listed[1])
    iota = r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?"
    if found := re.search(iota, attributes):
        shape, dims = _numbers(found[1]), _numbers(found[2])
        order = _numbers(found[3]) if found[3] else range(len(dims))
        groups = np.arange(math.prod(dims)).reshape(dims).transpose(*order).reshape(shape)
        return tuple(map(tuple, groups.tolist()))
    mesh = r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(([^{]*)\))? \{([^}]*)\}"
    if found := re.search(mesh, attributes):
        sizes = {axis: int(n) for axis, n in re.findall(r"'([^']+)'=(\d+)", found[1])}
        ids = _device_ids(found[2]) if found[2] else np.arange(math.prod(sizes.values()))
        return _mesh_groups(ids.reshape(*sizes.values()), list(sizes), found[3])
    return ()


def _device_ids(text: str) -> np.ndarray:
    """The devices of a mesh in their order.

    The text is a list "0,2,1,3", or "[128,2]T(1,0)": the numbers 0..255 in a 128 x 2 matrix, which
    is transposed.
    """
    if iota := re.fullmatch(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", text.strip()):
        dims = _numbers(iota[1])
        if iota[2]:
            return np.arange(math.prod(dims)).reshape(dims).transpose(_numbers(iota[2])).ravel()
    return np.array(_numbers(re.sub(r"[^\d,]", "", text)))


def _mesh_groups(ids: np.ndarray, axes: list[str], named: str) -> tuple[tuple[int, ...], ...]:
    """Groups along the named axes of a mesh.

    A name may stand for a part of an axis: 'a':(2)4 is the part of size 4 after a part of size 2.
    """
    shape, inside, position = [], [], 0
    wanted = {
        m[1]: (int(m[2]), int(m[3])) if m[2] else None
        for m in re.finditer(r"'([^']+)'(?::\((\d+)\)(\d+))?", named)
    }
    for axis, size in zip(axes, ids.shape, strict=True):
        before, width = wanted.get(axis) or (1, size)
        parts = (before, width, size // before // width) if axis in wanted else (1, 1, size)
        shape += parts
        if axis in wanted:
            inside.append(position + 1)
        position += 3
    outside = [i for i in range(len(shape)) if i not in inside]
    split = ids.reshape(shape).transpose(*outside, *inside)
    return tuple(map(tuple, split.reshape(-1, math.prod(shape[i] for i in inside)).tolist()))


def _braces(text: str) -> tuple[tuple[int, ...], ...]:
    return tuple(_numbers(group) for group in re.findall(r"\{([\d,]*)\}", text))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in text.split(",") if n)


def flops(module: Module) -> int:
    """FLOPs of matrix products and convolutions on one device, 2 x multiply-adds.

    Products that are computed again, or by several devices, count too.
    """
    total = 0
    for name, instruction in module.instructions():
        times = module.times.get(name, 0)
        if times and instruction.opcode in ("dot", "convolution"):
            body = module.computations[name]
            left, right = (body[operand].shapes[0].dims for operand in instruction.operands[:2])
            is_dot = instruction.opcode == "dot"
            count = _dot(instruction, left) if is_dot else _convolution(instruction, left, right)
            total += times * count
    return total


def _dot(instruction: Instruction, left: tuple[int, ...]) -> int:
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
    axes = _numbers(contracted[1] if contracted else "")
    return 2 * math.prod(instruction.shapes[0].dims) * math.prod(left[i] for i in axes)


def _convolution(instruction: Instruction, left: tuple[int, ...], right: tuple[int, ...]) -> int:
    """FLOPs of a convolution, without products with padding.

    XLA for TPU writes batched matrix products as convolutions, most of whose products are with
    padding.
    """
    # 1. The products of one position of the window.
    names = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    output = instruction.shapes[0].dims
    batch, features = output[names[3].index("b")], output[names[3].index("f")]
    count = 2 * batch * features * right[names[2].index("i")]
    # 2. The parameters of the window along each spatial axis.
    spatial = sorted(c for c in names[3] if c.isdigit())
    keys = r"(size|stride|pad|lhs_dilate|rhs_dilate)=([\dx_\-]+)"
    window = dict(re.findall(keys, _braced(instruction.attributes, "window")))

    def each(key: str, default: str) -> list[int]:
        """A parameter of each axis; for the padding "low_high", the low one."""
        values = window[key].split("x") if key in window else [default] * len(spatial)
        return [int(value.split("_")[0]) for value in values]

    strides, low = each("stride", "1"), each("pad", "0")
    left_dilation, right_dilation = each("lhs_dilate", "1"), each("rhs_dilate", "1")
    # 3. The positions of the window that are on an element of the input.
    for i, axis in enumerate(spatial):
        at = np.arange(output[names[3].index(axis)])[:, None] * strides[i]
        at = at + np.arange(right[names[2].index(axis)]) * right_dilation[i] - low[i]
        last = (left[names[1].index(axis)] - 1) * left_dilation[i]
        count *= int(np.sum((at >= 0) & (at <= last) & (at % left_dilation[i] == 0)))
    return count


def _braced(attributes: str, name: str) -> str:
    """The text in the braces of the attribute name={...}, or ""."""
    found = re.search(rf"\b{name}=\{{([^}}]*)\}}", attributes)
    return found[1] if found else ""


@dataclasses.dataclass(frozen=True)
class Buffer:
    """Arrays of one shape and one origin that the program stores in HBM.

    Attributes:
      bytes: of one of them.
      shape: type and dimensions.
      op_name: the end of the name of the traced operation.
      count: their number.
    """

    bytes: int
    shape: str
    op_name: str
    count: int


def biggest(module: Module, number: int = 5) -> list[Buffer]:
    """The `number` largest arrays that the program makes, without its arguments.

    Arrays of the same shape and origin are one entry.
    """
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for instruction, shape in _made(module):
        key = (str(shape), short(instruction.op_name))
        found[key] = (shape.bytes, found.get(key, (0, 0))[1] + 1)
    largest = sorted(found.items(), key=lambda item: -item[1][0])[:number]
    return [Buffer(size, shape, origin, count) for (shape, origin), (size, count) in largest]


def _made(module: Module) -> Iterator[tuple[Instruction, Shape]]:
    """The results in HBM of all instructions outside fusions."""
    for name, instruction in module.instructions():
        runs = module.times.get(name, 0) and name not in module.fused
        if runs and instruction.opcode not in _FREE - set(KINDS):
            yield from ((instruction, shape) for shape in instruction.shapes if not shape.on_core)


def short(op_name: str) -> str:
    """The last three parts of a traced name.

    They follow "backward: " in the backward pass, and "again: " in a second computation.
    """
    backward = "backward: " if "transpose(" in op_name else ""
    again = "again: " if "rematted_computation" in op_name else ""
    parts = [p for p in op_name.split("/") if not re.fullmatch(_SCAFFOLD, p)]
    return backward + again + "/".join(p for p in parts[-3:] if p != "rematted_computation")


def by_kind(found: list[Collective]) -> Iterator[tuple[str, int, float]]:
    """(kind, number of executions, bytes sent by each device) of the kinds that occur."""
    for kind in KINDS:
        chosen = [c for c in found if c.kind == kind]
        if chosen:
            yield kind, sum(c.times for c in chosen), sum(c.sent for c in chosen)

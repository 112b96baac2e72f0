"""What a compiled program does, counted over all turns of its loops: matrix FLOPs, HBM traffic,
collectives, and its biggest arrays.

All numbers are of one device: the text is the program that each device runs.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

import numpy as np

from genhmr_jax.train.aot.hlo import Instruction, Module, Shape

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
# What only names, moves into view or starts: no traffic of its own.
_FREE = {
    "parameter",
    "constant",
    "tuple",
    "get-tuple-element",
    "bitcast",
    "while",
    "conditional",
    "call",
    "iota",
    "after-all",
    "partition-id",
}
_FREE |= {
    "copy-done",
    "async-start",
    "async-update",
    "async-done",
    "optimization-barrier",
    "replica-id",
    "opt-barrier",
}
_FREE |= {kind + end for kind in KINDS for end in ("", "-start", "-done")}

_SCAFFOLD = r"jit\(.*\)|jvp\(\)|transpose\(jvp\(\)\)|while|body|closed_call|checkpoint"


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective of the program.

    Attributes:
      bytes: of the operands on one device, each time.
      groups: devices that exchange data, as positions in the mesh; for a collective-permute the
        (from, to) pairs.
      times: how often it runs.
    """

    kind: str
    bytes: int
    groups: tuple[tuple[int, ...], ...]
    times: int
    op_name: str

    @property
    def size(self) -> int:
        """Devices in a group."""
        return len(self.groups[0]) if self.groups else 1

    @property
    def sent(self) -> float:
        """Bytes that each device sends in a ring, all times together (Thakur et al. 2005): an
        all-gather passes on n - 1 shares, a reduce-scatter of the n shares n - 1, an all-reduce
        does both, an all-to-all sends n - 1 of n parts, a permute everything."""
        n = self.size
        share = {"all-gather": n - 1, "all-reduce": 2 * (n - 1) / n, "collective-permute": 1}.get(
            self.kind, (n - 1) / n
        )
        return self.times * self.bytes * share


def collectives(module: Module) -> list[Collective]:
    """All collectives. One that runs beside other work appears in several pieces of the text; its
    channel tells that it is one."""
    found: dict[str, Collective] = {}
    for name, instruction in module.instructions():
        kind = instruction.opcode.removesuffix("-start")
        times = module.times.get(name, 0)
        if kind not in KINDS or not times:
            continue
        # The TPU compiler writes a reduce-scatter as a fusion of an all-reduce and the slice that a
        # device keeps.
        if kind == "all-reduce" and name.startswith("all-reduce-scatter"):
            kind = "reduce-scatter"
        size = sum(module.computations[name][operand].bytes for operand in instruction.operands)
        channel = re.search(r"channel_id=(\d+)", instruction.attributes)
        key = f"{kind} {channel[1]}" if channel else f"{name}/{instruction.name}"
        made = Collective(
            kind, size, replica_groups(instruction.attributes), times, instruction.op_name
        )
        if key not in found or found[key].times < times:
            found[key] = made
    return [c for c in found.values() if c.size > 1]


def replica_groups(attributes: str) -> tuple[tuple[int, ...], ...]:
    """The groups of a collective, in any of the forms in which XLA writes them."""
    if pairs := re.search(r"source_target_pairs=\{(\{.*?\})\}", attributes):
        return _braces(pairs[1])
    if listed := re.search(r"replica_groups=\{(\{.*?\})\}", attributes):
        return _braces(listed[1])
    if iota := re.search(
        r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", attributes
    ):
        shape, dims = _numbers(iota[1]), _numbers(iota[2])
        order = _numbers(iota[3]) if iota[3] else range(len(dims))
        return tuple(
            map(
                tuple,
                np.arange(math.prod(dims)).reshape(dims).transpose(*order).reshape(shape).tolist(),
            )
        )
    if mesh := re.search(
        r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(([^{]*)\))? \{([^}]*)\}", attributes
    ):
        sizes = {axis: int(n) for axis, n in re.findall(r"'([^']+)'=(\d+)", mesh[1])}
        ids = _device_ids(mesh[2]) if mesh[2] else np.arange(math.prod(sizes.values()))
        return _mesh_groups(ids.reshape(*sizes.values()), list(sizes), mesh[3])
    return ()


def _device_ids(text: str) -> np.ndarray:
    """The devices of a mesh in their order: a list "0,2,1,3", or "[128,2]T(1,0)", all of them
    counted over 128 x 2 and transposed."""
    if iota := re.fullmatch(r"\[([\d,]+)\](?:T\(([\d,]+)\))?", text.strip()):
        dims = _numbers(iota[1])
        if iota[2]:
            return np.arange(math.prod(dims)).reshape(dims).transpose(_numbers(iota[2])).ravel()
    return np.array(_numbers(re.sub(r"[^\d,]", "", text)))


def _mesh_groups(ids: np.ndarray, axes: list[str], named: str) -> tuple[tuple[int, ...], ...]:
    """Groups along the named axes of a mesh; 'a':(2)4 names a part of an axis: 4 wide, with 2 parts
    before it."""
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
    """Matrix products and convolutions of one device, 2 x multiply-adds; also what is computed
    again, or on every device alike."""
    total = 0
    for name, instruction in module.instructions():
        times = module.times.get(name, 0)
        if times and instruction.opcode in ("dot", "convolution"):
            left, right = (
                module.computations[name][operand].shapes[0].dims
                for operand in instruction.operands[:2]
            )
            count = (
                _dot(instruction, left)
                if instruction.opcode == "dot"
                else _convolution(instruction, left, right)
            )
            total += times * count
    return total


def _dot(instruction: Instruction, left: tuple[int, ...]) -> int:
    contracted = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", instruction.attributes)
    return (
        2
        * math.prod(instruction.shapes[0].dims)
        * math.prod(left[i] for i in _numbers(contracted[1] if contracted else ""))
    )


def _convolution(instruction: Instruction, left: tuple[int, ...], right: tuple[int, ...]) -> int:
    """Products with padding do not count: XLA for TPU writes batched matrix products as
    convolutions full of it."""
    names = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", instruction.attributes)
    output = instruction.shapes[0].dims
    count = (
        2 * output[names[3].index("b")] * output[names[3].index("f")] * right[names[2].index("i")]
    )
    window = dict(
        re.findall(
            r"(size|stride|pad|lhs_dilate|rhs_dilate)=([\dx_\-]+)",
            _braced(instruction.attributes, "window"),
        )
    )
    spatial = [c for c in names[3] if c.isdigit()]
    each = lambda key, default: (
        [int(v) for v in window[key].split("x")] if key in window else [default] * len(spatial)
    )
    low = (
        [int(p.split("_")[0]) for p in window["pad"].split("x")]
        if "pad" in window
        else [0] * len(spatial)
    )
    for i, axis in enumerate(sorted(spatial)):
        at = np.arange(output[names[3].index(axis)])[:, None] * each("stride", 1)[i]
        at = at + np.arange(right[names[2].index(axis)]) * each("rhs_dilate", 1)[i] - low[i]
        dilation = each("lhs_dilate", 1)[i]
        count *= int(
            np.sum(
                (at >= 0)
                & (at <= (left[names[1].index(axis)] - 1) * dilation)
                & (at % dilation == 0)
            )
        )
    return count


def _braced(attributes: str, name: str) -> str:
    found = re.search(rf"\b{name}=\{{([^}}]*)\}}", attributes)
    return found[1] if found else ""


def hbm_bytes(module: Module) -> int:
    """An estimate of what the program reads from and writes to HBM: operands and results of every
    instruction that is not inside a fusion and not kept on the core. What a fusion only slices out
    of an operand, or writes into one, counts with the size of the slice."""
    total = 0
    for name, instruction in module.instructions():
        times = module.times.get(name, 0)
        if not times or name in module.fused or instruction.opcode in _FREE:
            continue
        body = module.computations[name]
        operands = [body[o].shapes for o in instruction.operands if o in body]
        if instruction.opcode == "fusion" and instruction.called("calls") in module.computations:
            moved = _fusion_bytes(
                module.computations[instruction.called("calls")], operands, instruction.shapes
            )
        elif instruction.opcode in ("dynamic-slice", "gather"):
            moved = 2 * _in_hbm(instruction.shapes)
        elif instruction.opcode in ("dynamic-update-slice", "scatter"):
            moved = 2 * _in_hbm(operands[1])
        elif instruction.opcode == "copy-start":
            moved = _in_hbm(instruction.shapes[:2])
        else:
            moved = _in_hbm(instruction.shapes) + sum(map(_in_hbm, operands))
        total += times * moved
    return total


def _fusion_bytes(
    inner: dict[str, Instruction], operands: list[tuple[Shape, ...]], results: tuple[Shape, ...]
) -> int:
    users: dict[str, list[Instruction]] = {}
    for instruction in inner.values():
        for operand in instruction.operands:
            users.setdefault(operand, []).append(instruction)
    total, written_into = 0, set()
    for instruction in inner.values():
        if instruction.opcode == "dynamic-update-slice":
            written_into.add(instruction.shapes[0])
            total += 2 * sum(s.bytes for s in inner[instruction.operands[1]].shapes)
        if instruction.opcode != "parameter" or int(instruction.argument) >= len(operands):
            continue
        read, by = _in_hbm(operands[int(instruction.argument)]), users.get(instruction.name, [])
        if (
            read
            and by
            and all(
                u.opcode in ("dynamic-slice", "dynamic-update-slice")
                and u.operands[0] == instruction.name
                for u in by
            )
        ):
            read = sum(u.bytes for u in by if u.opcode == "dynamic-slice")
        total += read
    return total + sum(s.bytes for s in results if not s.on_core and s not in written_into)


def _in_hbm(shapes: tuple[Shape, ...]) -> int:
    return sum(s.bytes for s in shapes if not s.on_core)


@dataclasses.dataclass(frozen=True)
class Buffer:
    """An array that the program keeps in HBM, and where it comes from; `count` alike ones."""

    bytes: int
    shape: str
    op_name: str
    count: int


def biggest(module: Module, number: int = 5) -> list[Buffer]:
    """The biggest arrays that the program makes on the way (not its arguments), those of the same
    shape and origin together."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for _, instruction, shape in _made(module):
        key = (str(shape), short(instruction.op_name))
        found[key] = (shape.bytes, found.get(key, (0, 0))[1] + 1)
    largest = sorted(found.items(), key=lambda item: -item[1][0])[:number]
    return [Buffer(size, shape, origin, count) for (shape, origin), (size, count) in largest]


def _made(module: Module) -> Iterator[tuple[str, Instruction, Shape]]:
    for name, instruction in module.instructions():
        if (
            module.times.get(name, 0)
            and name not in module.fused
            and instruction.opcode not in _FREE - set(KINDS)
        ):
            for shape in instruction.shapes:
                if not shape.on_core:
                    yield name, instruction, shape


def short(op_name: str) -> str:
    """The end of a traced name, which says most, and whether it is of the backward pass."""
    backward = "backward: " if "transpose(" in op_name else ""
    again = "again: " if "rematted_computation" in op_name else ""
    parts = [p for p in op_name.split("/") if not re.fullmatch(_SCAFFOLD, p)]
    return backward + again + "/".join(p for p in parts[-3:] if p != "rematted_computation")


def by_kind(found: list[Collective]) -> Iterator[tuple[str, int, float]]:
    """(kind, number of executions, bytes sent by each device) of the kinds that occur."""
    for kind in KINDS:
        alike = [c for c in found if c.kind == kind]
        if alike:
            yield kind, sum(c.times for c in alike), sum(c.sent for c in alike)

"""The text of a compiled XLA program: its instructions, and how often each computation runs.

XLA's own counts (`compiled.cost_analysis()`) include the body of a loop once. The counts here are
made from the text and multiplied by the number of iterations of each loop.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

_WIDTHS = {
    0.5: "s4 u4",
    1: "pred s8 u8 f8e4m3 f8e4m3fn f8e5m2 f8e4m3b11fnuz",
    2: "s16 u16 bf16 f16",
    4: "s32 u32 f32",
    8: "s64 u64 f64 c64",
    16: "c128",
}
BYTES = {dtype: width for width, dtypes in _WIDTHS.items() for dtype in dtypes.split()}
"""Bytes of one element of each type."""
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](\{[^}]*\})?")
_NAME = re.compile(r"%([\w.\-]+)")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (.*)")


@dataclasses.dataclass(frozen=True)
class Shape:
    """One array.

    Attributes:
      dtype: element type.
      dims: dimensions.
      on_core: whether it is in the chip's on-core memory (space S(1) or higher), not in HBM.
      stored: the dimensions with the padding of tiles; empty if they are not known.
    """

    dtype: str
    dims: tuple[int, ...]
    on_core: bool = False
    stored: tuple[int, ...] = ()

    @property
    def bytes(self) -> int:
        """Size without the padding of tiles."""
        return math.ceil(BYTES.get(self.dtype, 0) * math.prod(self.dims))

    @property
    def hbm(self) -> int:
        """Bytes in HBM, with the padding of tiles; 0 if it is on the core."""
        if self.on_core:
            return 0
        return math.ceil(BYTES.get(self.dtype, 0) * math.prod(self.stored or self.dims))

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.dims))}]"


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of the text.

    Attributes:
      name: of its result.
      opcode: the operation.
      shapes: the arrays of its result; several for a tuple.
      operands: names of the operands.
      argument: the text between the brackets.
      attributes: the text after the brackets.
      root: whether its result is that of the computation.
    """

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    argument: str
    attributes: str
    root: bool

    @property
    def bytes(self) -> int:
        """Bytes of the result, all its arrays together."""
        return sum(shape.bytes for shape in self.shapes)

    @property
    def op_name(self) -> str:
        """The operation of the traced program that it comes from, or ""."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""

    def called(self, attribute: str) -> str | None:
        """The computation named by an attribute (calls, body, condition, to_apply)."""
        found = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.attributes)
        return found[1] if found else None


@dataclasses.dataclass(frozen=True)
class Module:
    """A compiled program.

    Attributes:
      computations: by name; each one is its instructions by name, in order.
      entry: the name of the first computation.
    """

    computations: dict[str, dict[str, Instruction]]
    entry: str

    @functools.cached_property
    def times(self) -> dict[str, int]:
        """How often each computation runs in one call of the program.

        Every branch of a conditional counts.
        """
        times: dict[str, int] = {}
        waiting = [(self.entry, 1)]
        while waiting:
            name, count = waiting.pop()
            times[name] = times.get(name, 0) + count
            for instruction in self.computations[name].values():
                callees = self._callees(name, instruction)
                waiting += [(callee, count * turns) for callee, turns in callees]
        return times

    @functools.cached_property
    def fused(self) -> frozenset[str]:
        """The computations inside fusions, whose intermediate results stay on the core."""
        found = set()
        waiting = [i.called("calls") for _, i in self.instructions() if i.opcode == "fusion"]
        while waiting:
            name = waiting.pop()
            if name in self.computations and name not in found:
                found.add(name)
                for instruction in self.computations[name].values():
                    waiting += [callee for callee, _ in self._callees(name, instruction)]
        return frozenset(found)

    def instructions(self) -> Iterator[tuple[str, Instruction]]:
        """All pairs (computation name, instruction)."""
        for name, body in self.computations.items():
            for instruction in body.values():
                yield name, instruction

    def _callees(self, name: str, instruction: Instruction) -> list[tuple[str, int]]:
        """The computations that an instruction of computation `name` runs, and how often."""
        if instruction.opcode == "while":
            turns = self.turns(name, instruction)
            body, condition = instruction.called("body"), instruction.called("condition")
            return [(body, turns), (condition, turns + 1)]
        if instruction.opcode == "conditional":
            listed = re.search(r"branch_computations=\{([^}]*)\}", instruction.attributes)
            if listed:
                return [(branch, 1) for branch in _NAME.findall(listed[1])]
            return [(instruction.called(f"{way}_computation"), 1) for way in ("true", "false")]
        if instruction.opcode in ("fusion", "call", "async-start", "custom-call"):
            callee = instruction.called("calls") or instruction.called("to_apply")
            return [(callee, 1)] if callee in self.computations else []
        return []

    def turns(self, name: str, loop: Instruction) -> int:
        """The number of iterations of a while loop in computation `name`; 1 if it is unknown.

        It is the number that XLA states, else it follows from a condition `counter < constant`, the
        start of the counter and its step.
        """
        stated = re.search(r'known_trip_count\\?"?:\{\\?"?n\\?"?:\\?"?(\d+)', loop.attributes)
        if stated:
            return int(stated[1])
        # 1. The limit in the condition, and the position of the counter in the loop's state.
        condition = self.computations[loop.called("condition")]
        compare = self._comparison(condition)
        if compare is None:
            return 1
        counter, limit = (_follow(condition, condition[o]) for o in compare.operands)
        index = re.search(r"index=(\d+)", counter.attributes)
        if limit.opcode != "constant" or counter.opcode != "get-tuple-element" or not index:
            return 1
        position = int(index[1])
        # 2. The start of the counter and its step.
        start = _constant_of_tuple(self.computations[name], loop.operands[0], position)
        step = _step(self.computations[loop.called("body")], position)
        return max(math.ceil((int(limit.argument) - start) / max(step, 1)), 0)

    def _comparison(self, condition: dict[str, Instruction]) -> Instruction | None:
        """The comparison `a < b` that a condition consists of; None if it is another one."""
        compare = _follow(condition, _root(condition))
        if compare.opcode == "fusion":
            # A fused comparison: the operands of the fusion, in the order of its parameters.
            inner = self.computations[compare.called("calls")]
            root = _root(inner)
            parameters = [inner[o] for o in root.operands if inner[o].opcode == "parameter"]
            operands = tuple(compare.operands[int(p.argument)] for p in parameters)
            compare = dataclasses.replace(root, operands=operands)
        is_less = compare.opcode == "compare" and "direction=LT" in compare.attributes
        return compare if is_less and len(compare.operands) == 2 else None


def _root(body: dict[str, Instruction]) -> Instruction:
    """The instruction whose result is that of its computation."""
    return next(instruction for instruction in body.values() if instruction.root)


def _constant_of_tuple(body: dict[str, Instruction], name: str, position: int) -> int:
    """The integer constant at a position of the tuple `name`; 0 if it is not a constant."""
    made = body[name]
    if made.opcode != "tuple":
        return 0
    value = _follow(body, body[made.operands[position]])
    is_integer = value.opcode == "constant" and re.fullmatch(r"-?\d+", value.argument)
    return int(value.argument) if is_integer else 0


def _step(body: dict[str, Instruction], position: int) -> int:
    """The constant that the body of a loop adds to a position of its state; 1 if unknown."""
    root = _root(body)
    if root.opcode != "tuple":
        return 1
    update = _follow(body, body[root.operands[position]])
    if update.opcode != "add":
        return 1
    terms = [_follow(body, body[name]) for name in update.operands]
    return next((int(term.argument) for term in terms if term.opcode == "constant"), 1)


def _follow(body: dict[str, Instruction], instruction: Instruction) -> Instruction:
    """The instruction that computed a value, before copies and conversions of it."""
    copies = ("copy", "bitcast", "convert", "copy-done", "copy-start")
    while instruction.opcode in copies and instruction.operands:
        instruction = body[instruction.operands[0]]
    return instruction


def parse(text: str) -> Module:
    """The program of the text `compiled.as_text()`."""
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        outermost = not line.startswith((" ", "}", "HloModule"))
        if outermost and line.endswith("{") and "(" in line:
            head = line.removeprefix("ENTRY ").lstrip("%")
            name = re.split(r"[ (]", head, maxsplit=1)[0]
            current = computations.setdefault(name, {})
            entry = name if line.startswith("ENTRY") else entry
        elif current is not None and (found := _INSTRUCTION.fullmatch(line)):
            instruction = _instruction(found[2], found[3], bool(found[1]))
            current[instruction.name] = instruction
    return Module(computations, entry)


def _instruction(name: str, rest: str, root: bool) -> Instruction:
    """The instruction of a line `name = rest`."""
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    opened = rest.index("(", end)
    closed = _closing(rest, opened)
    inside = rest[opened + 1 : closed]
    return Instruction(
        name,
        rest[end:opened].strip(),
        arrays(rest[:end]),
        tuple(_NAME.findall(inside)),
        inside.strip(),
        rest[closed + 1 :],
        root,
    )


def _closing(text: str, opened: int) -> int:
    """The position of the bracket that closes the one at `opened`."""
    depth = 0
    for found in re.compile(r"[()]").finditer(text, opened):
        depth += 1 if found[0] == "(" else -1
        if depth == 0:
            return found.start()
    return len(text) - 1


def arrays(text: str) -> tuple[Shape, ...]:
    """The arrays in the text of a type: f32[2,3]{1,0:T(8,128)S(1)}, or a tuple of such types."""
    found = []
    for dtype, dims, layout in _ARRAY.findall(text):
        if dtype in BYTES:
            on_core = bool(re.search(r"S\([1-9]", layout or ""))
            sizes = tuple(int(n) for n in dims.split(",") if n)
            found.append(Shape(dtype, sizes, on_core, _stored(sizes, layout or "")))
    return tuple(found)


def _stored(dims: tuple[int, ...], layout: str) -> tuple[int, ...]:
    """The dimensions padded to whole tiles.

    {2,1,0:T(8,128)} are the axes from the innermost on, and a tile over the last two of them: the
    innermost axis is padded to a multiple of 128, the next one to a multiple of 8.
    """
    found = re.match(r"\{([\d,]*):T\(([\d,]+)\)", layout)
    if not found:
        return dims
    order, tile = ([int(n) for n in part.split(",") if n] for part in found.groups())
    sizes = list(dims)
    for axis, length in zip(order, reversed(tile), strict=False):
        sizes[axis] = math.ceil(sizes[axis] / length) * length
    # A tile with more axes than the array.
    return (*tile[: max(len(tile) - len(order), 0)], *sizes)

"""Reads the text of a compiled XLA program: instructions, and how often each computation runs.

XLA's own counts (`compiled.cost_analysis()`) take the body of a loop once. The text has the loops,
so what is counted here is multiplied by their turns.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator

BYTES = {
    "pred": 1,
    "s4": 0.5,
    "u4": 0.5,
    "s8": 1,
    "u8": 1,
    "s16": 2,
    "u16": 2,
    "bf16": 2,
    "f16": 2,
    "s32": 4,
    "u32": 4,
    "f32": 4,
}
BYTES |= {"s64": 8, "u64": 8, "f64": 8, "c64": 8, "c128": 16} | {
    f"f8{kind}": 1 for kind in ("e4m3", "e4m3fn", "e5m2", "e4m3b11fnuz")
}
_ARRAY = re.compile(r"(\w+)\[([\d,]*)\](\{[^}]*\})?")
_NAME = re.compile(r"%([\w.\-]+)")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = (.*)")


@dataclasses.dataclass(frozen=True)
class Shape:
    """One array: element type, dimensions, and whether it lies in the chip's on-core memory (space
    S(1) and up) and not in HBM."""

    dtype: str
    dims: tuple[int, ...]
    on_core: bool = False

    @property
    def bytes(self) -> int:
        """Size without the padding of tiles."""
        return math.ceil(BYTES.get(self.dtype, 0) * math.prod(self.dims))

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.dims))}]"


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line: `shapes` are the arrays of its result (several for a tuple), `operands` names,
    `attributes` the text after them."""

    name: str
    opcode: str
    shapes: tuple[Shape, ...]
    operands: tuple[str, ...]
    argument: str
    attributes: str
    root: bool

    @property
    def bytes(self) -> int:
        """Of the result, all parts together."""
        return sum(shape.bytes for shape in self.shapes)

    @property
    def op_name(self) -> str:
        """Where in the traced program it comes from, or ""."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""

    def called(self, attribute: str) -> str | None:
        """The computation named by an attribute (calls, body, condition, to_apply)."""
        found = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.attributes)
        return found[1] if found else None


@dataclasses.dataclass(frozen=True)
class Module:
    """A compiled program: computations by name, each its instructions by name in order."""

    computations: dict[str, dict[str, Instruction]]
    entry: str

    @functools.cached_property
    def times(self) -> dict[str, int]:
        """How often each computation runs in one call of the program. Of a conditional every branch
        counts."""
        times: dict[str, int] = {}
        waiting = [(self.entry, 1)]
        while waiting:
            name, count = waiting.pop()
            times[name] = times.get(name, 0) + count
            for instruction in self.computations[name].values():
                waiting += [
                    (callee, count * turns) for callee, turns in self._callees(name, instruction)
                ]
        return times

    @functools.cached_property
    def fused(self) -> frozenset[str]:
        """Computations inside fusions: what they compute stays on the core."""
        found, waiting = (
            set(),
            [i.called("calls") for _, i in self.instructions() if i.opcode == "fusion"],
        )
        while waiting:
            name = waiting.pop()
            if name in self.computations and name not in found:
                found.add(name)
                waiting += [
                    callee
                    for i in self.computations[name].values()
                    for callee, _ in self._callees(name, i)
                ]
        return frozenset(found)

    def instructions(self) -> Iterator[tuple[str, Instruction]]:
        """(computation, instruction) of all."""
        for name, body in self.computations.items():
            for instruction in body.values():
                yield name, instruction

    def _callees(self, name: str, instruction: Instruction) -> list[tuple[str, int]]:
        if instruction.opcode == "while":
            turns = self.turns(name, instruction)
            return [
                (instruction.called("body"), turns),
                (instruction.called("condition"), turns + 1),
            ]
        if instruction.opcode == "conditional":
            listed = re.search(r"branch_computations=\{([^}]*)\}", instruction.attributes)
            branches = (
                _NAME.findall(listed[1])
                if listed
                else [instruction.called(f"{way}_computation") for way in ("true", "false")]
            )
            return [(branch, 1) for branch in branches]
        if instruction.opcode in ("fusion", "call", "async-start", "custom-call"):
            callee = instruction.called("calls") or instruction.called("to_apply")
            return [(callee, 1)] if callee in self.computations else []
        return []

    def turns(self, name: str, loop: Instruction) -> int:
        """Turns of a while loop: as XLA states them, else from a condition `counter < constant` and
        the counter's start; 1 if unknown."""
        stated = re.search(r'known_trip_count\\?"?:\{\\?"?n\\?"?:\\?"?(\d+)', loop.attributes)
        if stated:
            return int(stated[1])
        condition, body = (
            self.computations[loop.called("condition")],
            self.computations[loop.called("body")],
        )
        compare = _follow(condition, next(i for i in condition.values() if i.root))
        if (
            compare is not None and compare.opcode == "fusion"
        ):  # a fused comparison: its arguments in the order of the parameters
            inner = self.computations[compare.called("calls")]
            root = next(i for i in inner.values() if i.root)
            order = [
                compare.operands[int(inner[o].argument)]
                for o in root.operands
                if inner[o].opcode == "parameter"
            ]
            compare = dataclasses.replace(root, operands=tuple(order))
        if (
            compare is None
            or compare.opcode != "compare"
            or "direction=LT" not in compare.attributes
            or len(compare.operands) != 2
        ):
            return 1
        counter, limit = (_follow(condition, condition[o]) for o in compare.operands)
        index = re.search(r"index=(\d+)", counter.attributes)
        if limit.opcode != "constant" or counter.opcode != "get-tuple-element" or not index:
            return 1
        position = int(index[1])
        start = self._element(self.computations[name], loop.operands[0], position)
        step = 1
        root = next(i for i in body.values() if i.root)
        if root.opcode == "tuple":
            update = _follow(body, body[root.operands[position]])
            if update.opcode == "add":
                constants = [_follow(body, body[o]) for o in update.operands]
                step = next((int(c.argument) for c in constants if c.opcode == "constant"), 1)
        return max(math.ceil((int(limit.argument) - start) / max(step, 1)), 0)

    def _element(self, body: dict[str, Instruction], name: str, position: int) -> int:
        """The constant at a position of a tuple; 0 when it is none."""
        made = body[name]
        if made.opcode != "tuple":
            return 0
        value = _follow(body, body[made.operands[position]])
        return (
            int(value.argument)
            if value.opcode == "constant" and re.fullmatch(r"-?\d+", value.argument)
            else 0
        )


def _follow(body: dict[str, Instruction], instruction: Instruction) -> Instruction:
    """The instruction whose value this one merely passes on."""
    while (
        instruction.opcode in ("copy", "bitcast", "convert", "copy-done", "copy-start")
        and instruction.operands
    ):
        instruction = body[instruction.operands[0]]
    return instruction


def parse(text: str) -> Module:
    """A program from `compiled.as_text()`."""
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if (
            not line.startswith((" ", "}"))
            and line.endswith("{")
            and "(" in line
            and not line.startswith("HloModule")
        ):
            head = line.removeprefix("ENTRY ").lstrip("%")
            name = re.split(r"[ (]", head, maxsplit=1)[0]
            current = computations.setdefault(name, {})
            entry = name if line.startswith("ENTRY") else entry
        elif current is not None and (found := _INSTRUCTION.fullmatch(line)):
            instruction = _instruction(found[2], found[3], bool(found[1]))
            current[instruction.name] = instruction
    return Module(computations, entry)


def _instruction(name: str, rest: str, root: bool) -> Instruction:
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
    """Where the bracket that opens at `opened` closes."""
    depth = 0
    for found in re.compile(r"[()]").finditer(text, opened):
        depth += 1 if found[0] == "(" else -1
        if depth == 0:
            return found.start()
    return len(text) - 1


def arrays(text: str) -> tuple[Shape, ...]:
    """The arrays in the text of a type: f32[2,3]{1,0:T(8,128)S(1)}, or a tuple of such."""
    return tuple(
        Shape(
            dtype,
            tuple(int(n) for n in dims.split(",") if n),
            bool(re.search(r"S\([1-9]", layout or "")),
        )
        for dtype, dims, layout in _ARRAY.findall(text)
        if dtype in BYTES
    )

"""The HBM traffic of a compiled program, operation by operation.

The bytes of an operation are its operands and results in HBM, with the padding of their tiles.
XLA's text shows where less is moved, and these rules follow it:

* An array in the space S(1) is on the core. A transfer to it (copy-start, slice-start) reads HBM
  once, one from it writes HBM once. The other half, copy-done or slice-done, moves nothing.
* slice-start has its whole operand in its result, but moves only the slice.
* A fusion may read only slices of an operand, and write only a slice into it, also where that
  happens in a fusion inside the fusion.
* A collective that runs beside other work passes its buffers through the fusions of that work,
  which name them as operands and results (`output_to_operand_aliasing`). The collective is counted
  once: it reads its operand and writes its result.
* Buffers that are only allocated or viewed (AllocateBuffer, ConcatBitcast) move nothing.

Operands that a kernel reads several times, tile by tile, count once: the sum is a lower bound.
"""

import dataclasses
import re
from collections.abc import Iterator

from genhmr_jax.train.aot.hlo import Instruction, Module, Shape
from genhmr_jax.train.aot.hlo_cost import KINDS

# Instructions without traffic: names, views, and ends of work that is counted at its start.
_FREE = {
    *("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional"),
    *("call", "iota", "after-all", "partition-id", "replica-id", "copy-done", "slice-done"),
    *("async-start", "async-update", "async-done", "optimization-barrier", "opt-barrier"),
    *(kind + "-done" for kind in KINDS),
}
PARTS = ("vit", "pyramid", "transformer", "optimizer")
_FREE_TARGETS = ("AllocateBuffer", "ConcatBitcast")
_STARTS = (*KINDS, *(kind + "-start" for kind in KINDS))


@dataclasses.dataclass(frozen=True)
class Term:
    """The traffic of one operation.

    Attributes:
      computation: the one that contains it.
      instruction: the operation.
      times: number of its executions.
      bytes: from and to HBM in all executions.
    """

    computation: str
    instruction: Instruction
    times: int
    bytes: int


def terms(module: Module) -> Iterator[Term]:
    """All operations of a program that move something."""
    seen: dict[str, Term] = {}
    for name, instruction in module.instructions():
        times = module.times.get(name, 0)
        if not times:
            continue
        if instruction.opcode in _STARTS:
            # The pieces of one collective have the same channel.
            channel = re.search(r"channel_id=(\d+)", instruction.attributes)
            key = channel[0] if channel else f"{name}/{instruction.name}"
            term = Term(name, instruction, times, times * _collective(module, name, instruction))
            if key not in seen or seen[key].bytes < term.bytes:
                seen[key] = term
        elif name not in module.fused and instruction.opcode not in _FREE:
            yield Term(name, instruction, times, times * _moved(module, name, instruction))
    yield from seen.values()


def hbm_bytes(module: Module) -> int:
    """An estimate of the bytes that the program reads from HBM and writes to it."""
    return sum(term.bytes for term in terms(module))


def by_part(module: Module) -> dict[str, int]:
    """The bytes of each part of the step: PARTS, "collectives", and "other".

    A part is a `jax.named_scope` of the traced program. An operation without a name belongs to the
    part with the most traffic in its computation.
    """
    found: dict[str, int] = dict.fromkeys((*PARTS, "collectives", "other"), 0)
    inside: dict[str, dict[str, int]] = {}
    unnamed: list[Term] = []
    for term in terms(module):
        named = re.search(rf"\b({'|'.join(PARTS)})\b", term.instruction.op_name)
        if term.instruction.opcode in _STARTS:
            found["collectives"] += term.bytes
        elif not term.instruction.op_name:
            unnamed.append(term)
        else:
            part = named[1] if named else "other"
            found[part] += term.bytes
            here = inside.setdefault(term.computation, {})
            here[part] = here.get(part, 0) + term.bytes
    for term in unnamed:
        here = inside.get(term.computation, {})
        found[max(here, key=here.__getitem__) if here else "other"] += term.bytes
    return found


def _collective(module: Module, name: str, instruction: Instruction) -> int:
    """The traffic of a collective; that of a reduce-scatter is counted with its fusion."""
    if name.startswith("all-reduce-scatter"):
        return 0
    body = module.computations[name]
    read = sum(_in_hbm(body[operand].shapes) for operand in instruction.operands)
    results = instruction.shapes
    if instruction.opcode in ("all-gather-start", "collective-permute-start"):
        count = len(instruction.operands)
        results = results[count : 2 * count]  # between the operands and the state of the transfer
    return read + _in_hbm(results)


def _moved(module: Module, name: str, instruction: Instruction) -> int:
    """The traffic of one execution of an instruction outside fusions."""
    body, opcode = module.computations[name], instruction.opcode
    operands = [body[o].shapes for o in instruction.operands if o in body]
    written = _in_hbm(instruction.shapes)
    inner = instruction.called("calls")
    if opcode == "fusion" and inner in module.computations:
        return _fusion(module, inner, operands, instruction)
    if opcode == "custom-call" and any(t in instruction.attributes for t in _FREE_TARGETS):
        return 0
    if opcode in ("slice", "dynamic-slice", "gather"):
        return _part(operands[0], instruction.shapes) + written
    if opcode == "slice-start":
        result = instruction.shapes[len(operands) : len(operands) + 1]
        return _part(operands[0], result) + _in_hbm(result)
    if opcode in ("dynamic-update-slice", "scatter"):
        update = operands[1 if opcode == "dynamic-update-slice" else 2]
        return _in_hbm(update) + _part(instruction.shapes, update)
    if opcode == "copy-start":
        return _in_hbm(instruction.shapes[:2])
    return written + sum(map(_in_hbm, operands))


def _fusion(
    module: Module, inner: str, operands: list[tuple[Shape, ...]], instruction: Instruction
) -> int:
    """The traffic of a fusion of the computation `inner`."""
    total = 0
    for parameter in module.computations[inner].values():
        if parameter.opcode == "parameter" and int(parameter.argument) < len(operands):
            whole = _in_hbm(operands[int(parameter.argument)])
            total += min(_read(module, inner, parameter.name, whole), whole) if whole else 0
    for i, shape in enumerate(instruction.shapes):
        total += min(_written(module, inner, i, shape, instruction), shape.hbm) if shape.hbm else 0
    return total


def _read(module: Module, name: str, value: str, whole: int) -> int:
    """The bytes that computation `name` reads of the array `value` in HBM, of `whole` bytes."""
    body, total = module.computations[name], 0
    for user in body.values():
        places = [i for i, operand in enumerate(user.operands) if operand == value]
        inner = user.called("calls")
        if not places or user.opcode in ("tuple", *_STARTS) and not _scatters(name):
            continue
        if user.opcode == "bitcast":
            total += _read(module, name, user.name, whole)
        elif user.opcode in ("dynamic-slice", "slice") and places == [0]:
            total += sum(dataclasses.replace(s, on_core=False).hbm for s in user.shapes)
        elif user.opcode == "dynamic-update-slice" and places == [0]:
            continue  # written in place
        elif user.opcode == "fusion" and inner in module.computations:
            parameters = _parameters(module, inner)
            total += sum(_read(module, inner, parameters[i], whole) for i in places)
        elif user.opcode == "custom-call" and "AsyncCollective" in user.attributes:
            continue  # counted with its collective
        else:
            total += whole
    return total


def _written(
    module: Module, name: str, index: int, shape: Shape, caller: Instruction | None
) -> int:
    """The bytes that result `index` of a fusion of computation `name` writes to HBM.

    Args:
      caller: the fusion, if it is outside other fusions.
    """
    body = module.computations[name]
    value = next(i for i in body.values() if i.root)
    if value.opcode == "tuple":
        value = body[value.operands[index]]
    while value.opcode == "bitcast":
        value = body[value.operands[0]]
    aliased = caller is None or f"{{{index}}}:" in caller.attributes
    if value.opcode == "parameter" and aliased:
        return 0  # passed through
    if value.opcode == "custom-call" and "AsyncCollective" in value.attributes:
        return 0  # counted with its collective
    if value.opcode in KINDS and not _scatters(name):
        return 0
    inner = value.called("calls")
    if value.opcode == "fusion" and inner in module.computations and len(value.shapes) == 1:
        return _written(module, inner, 0, shape, None)
    if value.opcode == "dynamic-update-slice":
        into = value.operands[0]
        while body[into].opcode == "bitcast":
            into = body[into].operands[0]
        if body[into].opcode == "parameter":  # in place
            return sum(
                dataclasses.replace(s, on_core=False).hbm for s in body[value.operands[1]].shapes
            )
    return shape.hbm


def _scatters(name: str) -> bool:
    """Whether a fused computation is a reduce-scatter: an all-reduce and slices of its result."""
    return name.startswith("all-reduce-scatter")


def _parameters(module: Module, name: str) -> dict[int, str]:
    """The names of a computation's parameters by number."""
    body = module.computations[name].values()
    return {int(i.argument): i.name for i in body if i.opcode == "parameter"}


def _part(whole: tuple[Shape, ...], part: tuple[Shape, ...]) -> int:
    """The bytes of `part` where `whole`, which contains it, is in HBM."""
    inside = sum(dataclasses.replace(s, on_core=False).hbm for s in part)
    return min(inside, _in_hbm(whole))


def _in_hbm(shapes: tuple[Shape, ...]) -> int:
    return sum(shape.hbm for shape in shapes)

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

Operands that a kernel reads several times, tile by tile, count once. The operand of a gather in a
fusion counts in whole.
"""

import dataclasses
import re
from collections.abc import Iterator

from genhmr_jax.train.aot.hlo import Instruction, Module, Shape
from genhmr_jax.train.aot.hlo_cost import KINDS, identity

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
            key = identity(module, name, instruction)
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
    for i, name in _parameters(module, inner).items():
        whole = _in_hbm(operands[i]) if i < len(operands) else 0
        total += min(_read(module, inner, name, whole), whole) if whole else 0
    root = _root(module, inner)
    of_tuple = root.opcode == "tuple"
    for i, shape in enumerate(instruction.shapes):
        aliased = f"{{{i if of_tuple else ''}}}: (" in instruction.attributes
        value = root.operands[i] if of_tuple else root.name
        total += min(_written(module, inner, value, shape, aliased), shape.hbm)
    return total


def _read(module: Module, name: str, value: str, whole: int) -> int:
    """The bytes that computation `name` reads of the array `value` in HBM, of `whole` bytes."""
    body, total = module.computations[name], 0
    for user in body.values():
        places = [i for i, operand in enumerate(user.operands) if operand == value]
        inner = user.called("calls")
        if not places or user.opcode == "tuple":
            continue
        if user.opcode in _STARTS and not _scatters(name) or _is_asynchronous(user):
            continue  # counted with its collective
        if user.opcode == "bitcast":
            total += _read(module, name, user.name, whole)
        elif user.opcode in ("dynamic-slice", "slice") and places == [0]:
            total += _as_in_hbm(user.shapes)
        elif user.opcode == "dynamic-update-slice" and places == [0]:
            continue  # written in place
        elif user.opcode == "fusion" and inner in module.computations:
            parameters = _parameters(module, inner)
            total += sum(_read(module, inner, parameters[i], whole) for i in places)
            if _passed(module, user) in places:
                total += _read(module, name, user.name, whole)
        else:
            total += whole
    return total


def _written(module: Module, name: str, value: str, shape: Shape, aliased: bool) -> int:
    """The bytes of HBM that computation `name` writes for its result `value` of this shape.

    Args:
      aliased: whether the program says that the result is in the place of an operand.
    """
    source = _source(module, name, value)
    if source.opcode == "parameter" and aliased or _is_asynchronous(source):
        return 0  # passed through, or counted with its collective
    if source.opcode in KINDS and not _scatters(name):
        return 0
    update = _update(module, name, value)
    return shape.hbm if update is None else update[1]


def _source(module: Module, name: str, value: str) -> Instruction:
    """The instruction of computation `name` that made a value, before views of it."""
    body = module.computations[name]
    found = body[value]
    while True:
        if found.opcode == "bitcast":
            found = body[found.operands[0]]
        elif found.opcode == "fusion" and (place := _passed(module, found)) is not None:
            found = body[found.operands[place]]
        else:
            return found


def _passed(module: Module, fusion: Instruction) -> int | None:
    """The number of the operand of which a fusion is only a view; None if it is not one."""
    inner = fusion.called("calls")
    source = _source(module, inner, _root(module, inner).name)
    return int(source.argument) if source.opcode == "parameter" else None


def _update(module: Module, name: str, value: str) -> tuple[int, int] | None:
    """The parameter that `value` is, with slices written into it in place, and their bytes.

    None if it is another array.
    """
    source = _source(module, name, value)
    if source.opcode == "dynamic-update-slice":
        into, moved = (
            source.operands[0],
            _as_in_hbm(module.computations[name][source.operands[1]].shapes),
        )
    elif source.opcode == "fusion":
        inner = source.called("calls")
        update = _update(module, inner, _root(module, inner).name)
        if update is None:
            return None
        into, moved = source.operands[update[0]], update[1]
    else:
        return None
    target = _source(module, name, into)
    if target.opcode == "parameter":
        return int(target.argument), moved
    before = _update(module, name, into)
    return before and (before[0], before[1] + moved)


def _root(module: Module, name: str) -> Instruction:
    return next(i for i in module.computations[name].values() if i.root)


def _is_asynchronous(instruction: Instruction) -> bool:
    """Whether it begins or ends a collective that runs beside other work."""
    return instruction.opcode == "custom-call" and "AsyncCollective" in instruction.attributes


def _scatters(name: str) -> bool:
    """Whether a fused computation is a reduce-scatter: an all-reduce and slices of its result."""
    return name.startswith("all-reduce-scatter")


def _parameters(module: Module, name: str) -> dict[int, str]:
    """The names of a computation's parameters by number."""
    body = module.computations[name].values()
    return {int(i.argument): i.name for i in body if i.opcode == "parameter"}


def _part(whole: tuple[Shape, ...], part: tuple[Shape, ...]) -> int:
    """The bytes of `part` where `whole`, which contains it, is in HBM."""
    return min(_as_in_hbm(part), _in_hbm(whole))


def _as_in_hbm(shapes: tuple[Shape, ...]) -> int:
    """The bytes of arrays as if they were in HBM."""
    return sum(dataclasses.replace(shape, on_core=False).hbm for shape in shapes)


def _in_hbm(shapes: tuple[Shape, ...]) -> int:
    return sum(shape.hbm for shape in shapes)

"""A check of a pickle's opcodes before it is unpickled, so that small files stay cheap.

Python's unpickler allocates what a pickle declares: a memo of 2^31 entries, or bytes of which the
file has none. And a pickle of a few hundred bytes can nest one tuple in another, twice each, forty
times: to hash, print or walk the result takes years. Here the opcodes are read one by one, nothing
is built, and such pickles are refused.
"""

import mmap
import pickletools

ALLOWANCE = 1 << 24
"""Bytes that the content may have without its shared parts being counted once."""
FACTOR = 8
"""Times the size of the pickle that its content may have beyond ALLOWANCE."""

_IN_PLACE = {"APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD"}
_LENGTH_BYTES = {
    pickletools.TAKEN_FROM_ARGUMENT1: 1,
    pickletools.TAKEN_FROM_ARGUMENT4: 4,
    pickletools.TAKEN_FROM_ARGUMENT4U: 4,
    pickletools.TAKEN_FROM_ARGUMENT8U: 8,
}
_OPCODES = {ord(opcode.code): opcode for opcode in pickletools.opcodes}


def check(data: bytes | mmap.mmap, start: int = 0, most: int | None = None) -> int:
    """Check the pickle at `start`, and return the position after it.

    Args:
      data: the pickle, perhaps with other content around it.
      start: its first byte.
      most: opcodes that it may have: one byte can become an object of 100 bytes, and a pickle from
        a compressed file can have far more bytes than the file. None: any number.

    Raises:
      ValueError: it is broken, declares more than it has, or its content would be much larger than
        the pickle if every reference to a shared part were a copy.
    """
    stack: list[list[int] | None] = []  # the size of each object in a list; None: a mark
    memo: dict[int, list[int]] = {}
    position, count = start, 0
    limit = ALLOWANCE + FACTOR * (len(data) - start)
    while position < len(data):
        count += 1
        if most is not None and count > most:
            raise ValueError(f"it has more than {most} objects")
        opcode = _OPCODES.get(data[position])
        if opcode is None:
            raise ValueError(f"no opcode at byte {position}")
        argument, end = _argument(opcode, data, position + 1)
        _apply(opcode, argument, end - position, stack, memo, limit)
        position = end
        if opcode.name == "STOP":
            return position
    raise ValueError("it ends without an end")


def _argument(
    opcode: pickletools.OpcodeInfo, data: bytes | mmap.mmap, start: int
) -> tuple[int, int]:
    """The argument as a number, if it is a short one, and the position after it."""
    length = opcode.arg.n if opcode.arg else 0
    if length == pickletools.UP_TO_NEWLINE:
        end = start
        for _ in range(2 if opcode.name in ("GLOBAL", "INST") else 1):
            end = data.find(b"\n", end) + 1
            if not end:
                raise ValueError("a line in it does not end")
        text = data[start : min(end, start + 20)].strip()
        return int(text) if opcode.name in ("PUT", "GET") else 0, end
    if length in _LENGTH_BYTES:
        start, count = start + _LENGTH_BYTES[length], _LENGTH_BYTES[length]
        length = int.from_bytes(data[start - count : start], "little")
    if start + length > len(data):
        raise ValueError(f"{opcode.name} of {length} bytes, which it does not have")
    return int.from_bytes(data[start : start + min(length, 8)], "little"), start + length


def _apply(
    opcode: pickletools.OpcodeInfo,
    argument: int,
    size: int,
    stack: list[list[int] | None],
    memo: dict[int, list[int]],
    limit: int,
) -> None:
    """Do to the sizes on the stack what an opcode does to objects. Raises ValueError."""
    name = opcode.name
    # 1. Those that only move objects. Our unpickler's memo is an array: its indices must be dense.
    if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
        index = len(memo) if name == "MEMOIZE" else argument
        if not 0 <= index <= 2 * len(memo) + 1000:
            raise ValueError(f"{name} {index} after {len(memo)} others")
        memo[index] = _top(stack)
    elif name in ("GET", "BINGET", "LONG_BINGET"):
        if argument not in memo:
            raise ValueError(f"{name} {argument}, which is not there")
        stack.append(memo[argument])
    elif name == "DUP":
        stack.append(_top(stack))
    elif name == "MARK":
        stack.append(None)
    elif name == "POP" and stack and stack[-1] is None:
        stack.pop()
    else:
        # 2. The others make one object of several. BUILD and its like enlarge the lowest of them.
        taken = _taken(opcode, stack)
        if opcode.stack_after:
            whole = taken[0] if name in _IN_PLACE and taken else [size]
            whole[0] += sum(part[0] for part in taken if part is not whole) + size
            if whole[0] > limit:
                raise ValueError("its content refers to the same parts too often")
            stack.append(whole)


def _top(stack: list[list[int] | None]) -> list[int]:
    if not stack or stack[-1] is None:
        raise ValueError("an opcode without an object")
    return stack[-1]


def _taken(opcode: pickletools.OpcodeInfo, stack: list[list[int] | None]) -> list[list[int]]:
    """The sizes of the objects that an opcode takes from the stack, the lowest one first."""
    before, taken = list(opcode.stack_before), []
    if pickletools.markobject in before:
        while stack and stack[-1] is not None:
            taken.append(stack.pop())
        if not stack:
            raise ValueError(f"{opcode.name} without a mark")
        stack.pop()
        before = before[: before.index(pickletools.markobject)]
    for _ in before:
        taken.append(_top(stack))
        stack.pop()
    return taken[::-1]

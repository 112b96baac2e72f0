"""BioVision hierarchies (.bvh): a skeleton and its motion in one text file.

A joint's rotation is the product of its rotation channels in the order of the file, for column
vectors: "Zrotation Yrotation Xrotation" is Rz Ry Rx. Position channels of joints other than the
root are ignored, since bones do not stretch. End sites are joints NAME_end.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from genhmr_jax.data.sources.skeleton import SkeletonMotion, check_joints, check_sane
from genhmr_jax.io.errors import InputError, shortened

_AGAIN = "download it again"
_CHANNELS = {f"{axis}{kind}" for axis in "xyz" for kind in ("position", "rotation")}


def read_bvh(path: Path) -> SkeletonMotion:
    """Reads a .bvh file; the root's position is the sum of its offset and its position channels.

    Raises:
      InputError: unreadable, no frames, incomplete, or a line with a wrong number of values.
    """
    try:
        lines = path.read_text(encoding="latin1").splitlines()
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
        raise InputError(path, problem, "check the path and its permissions") from error
    start = next((i for i, line in enumerate(lines) if line.strip().upper() == "MOTION"), None)
    if start is None:
        remedy = f"it is not a .bvh, or is incomplete: {_AGAIN}"
        raise InputError(path, "has no MOTION", remedy)
    names, parents, offsets, channels = _hierarchy(path, lines[:start])
    check_sane(np.array(offsets), path)
    check_joints(len(names), sum(map(len, channels)), path)
    values = _values(path, lines, start, sum(map(len, channels)))
    rotations = np.broadcast_to(np.eye(3), (len(values), len(names), 3, 3)).copy()
    root, column = None, 0
    for j, kinds in enumerate(channels):
        own = values[:, column : column + len(kinds)]
        column += len(kinds)
        turning = [i for i, kind in enumerate(kinds) if kind.endswith("rotation")]
        if turning:
            # Upper-case letters mean moving axes: the first channel is the leftmost factor.
            order = "".join(kinds[i][0] for i in turning).upper()
            if len(set(order)) != len(order):
                problem = f"{shortened(names[j])} turns twice about one axis ({shortened(order)})"
                raise InputError(path, problem, _AGAIN)
            rotations[:, j] = Rotation.from_euler(order, own[:, turning], degrees=True).as_matrix()
        if j == 0:
            root = np.zeros((len(values), 3)) + offsets[0]
            for i, kind in enumerate(kinds):
                if kind.endswith("position"):
                    root[:, "xyz".index(kind[0])] += own[:, i]
    return SkeletonMotion(tuple(names), tuple(parents), np.array(offsets), rotations, root)


def _hierarchy(
    path: Path, lines: list[str]
) -> tuple[list[str], list[int], list[list[float]], list[list[str]]]:
    """Names, parents, offsets and lower-case channels of the joints, in the order of the file."""
    names: list[str] = []
    parents: list[int] = []
    offsets: list[list[float]] = []
    channels: list[list[str]] = []
    stack: list[int] = []
    for where, words in _words(path, lines):
        key = words[0].upper()
        try:
            if key in ("ROOT", "JOINT", "END"):
                names.append(names[stack[-1]] + "_end" if key == "END" else words[1])
                parents.append(stack[-1] if stack else -1)
                offsets.append([0.0, 0.0, 0.0])
                channels.append([])
            elif key == "{":
                stack.append(len(names) - 1)
            elif key == "}":
                stack.pop()
            elif key == "OFFSET":
                offsets[stack[-1]] = [float(words[1]), float(words[2]), float(words[3])]
            elif key == "CHANNELS":
                channels[stack[-1]] = [word.lower() for word in words[2:]]
                if len(words) - 2 != int(words[1]) or set(channels[stack[-1]]) - _CHANNELS:
                    raise ValueError
        except (ValueError, IndexError) as error:
            problem = f"cannot be read: {shortened(' '.join(words))!r}"
            raise InputError(where, problem, _AGAIN) from error
    if not names or stack or parents.count(-1) != 1:
        raise InputError(path, "has no complete hierarchy of one root", _AGAIN)
    return names, parents, offsets, channels


def _values(path: Path, lines: list[str], start: int, width: int) -> np.ndarray:
    """The channels (N, width) of all frames."""
    head = [line.split() for line in lines[start + 1 : start + 3]]
    has_head = len(head) == 2 and head[0][:1] == ["Frames:"] and head[1][:2] == ["Frame", "Time:"]
    if not has_head or not head[0][-1].isdecimal():
        raise InputError(f"{path}: line {start + 2}", "Frames: and Frame Time: are missing", _AGAIN)
    count, rows = int(head[0][-1]), []
    for number, line in enumerate(lines[start + 3 :], start + 4):
        if not line.strip():
            continue
        try:
            row = [float(word) for word in line.split()]
        except ValueError as error:
            raise InputError(f"{path}: line {number}", "is not made of numbers", _AGAIN) from error
        if len(row) != width:
            problem = f"has {len(row)} numbers for {width} channels"
            raise InputError(f"{path}: line {number}", problem, f"it is perhaps cut off: {_AGAIN}")
        rows.append(row)
    if not rows:
        raise InputError(path, "is an empty sequence (0 frames)", _AGAIN)
    if len(rows) != count:
        problem = f"has {len(rows)} frames, but its header has {count}"
        raise InputError(path, problem, f"it is perhaps cut off: {_AGAIN}")
    check_sane(np.array(rows), path)
    return np.array(rows)


def _words(path: Path, lines: list[str]) -> Iterator[tuple[str, list[str]]]:
    for number, line in enumerate(lines, 1):
        if words := line.split():
            yield f"{path}: line {number}", words

"""Acclaim skeletons (.asf) and motions (.amc) of the CMU Graphics Lab motion capture database.

A bone has a direction and a length at rest, in world axes, and an `axis`: Euler angles of the frame
C in which its angles are measured. Its rotation is C R C^-1, with R = Rz Ry Rx of its degrees of
freedom. In a SkeletonMotion each bone is a joint of the same name at the bone's start; a bone
without children ends in a joint NAME_end.
"""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from genhmr_jax.data.sources.skeleton import SkeletonMotion, check_joints, check_sane
from genhmr_jax.io.errors import InputError, shortened

_ROOT = "root"
_REMEDY = "download it again from http://mocap.cs.cmu.edu"
_DEGREES = "only degrees are supported, the unit of CMU's files"


@dataclasses.dataclass
class Bone:
    """A bone of an .asf.

    Attributes:
      direction: unit vector at rest.
      length: at rest.
      axis: Euler angles of its frame, degrees.
      freedom: of "rx", "ry", "rz", its degrees of freedom.
    """

    direction: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(3))
    length: float = 0.0
    axis: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(3))
    freedom: tuple[str, ...] = ()


@dataclasses.dataclass
class Skeleton:
    """An .asf.

    Attributes:
      bones: by name.
      parent: of each bone; "root" for those at the root.
      root_order: of the root's six numbers.
      root_axis: Euler angles of the root's frame, degrees.
    """

    bones: dict[str, Bone] = dataclasses.field(default_factory=dict)
    parent: dict[str, str] = dataclasses.field(default_factory=dict)
    root_order: tuple[str, ...] = ("tx", "ty", "tz", "rx", "ry", "rz")
    root_axis: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(3))


def read_asf(path: Path) -> Skeleton:
    """Reads an .asf file in degrees with the axis order XYZ, as in all files of CMU.

    Raises:
      InputError: unreadable, other units or orders, or a bone outside the hierarchy.
    """
    skeleton, section, bone, name = Skeleton(), "", Bone(), ""
    for where, words in _lines(path):
        try:
            key, rest = words[0].lower(), words[1:]
            if key.startswith(":"):
                section = key
            elif section == ":units" and key == "angle" and rest[0].lower() != "deg":
                raise InputError(where, f"angles are in {shortened(rest[0])}", _DEGREES)
            elif section == ":root":
                _root_line(skeleton, key, rest, where)
            elif section == ":bonedata":
                if key == "begin":
                    bone, name = Bone(), ""
                elif key == "name":
                    name = rest[0]
                elif key == "end":
                    skeleton.bones[name] = bone
                else:
                    _bone_line(bone, key, rest, where)
            elif section == ":hierarchy" and key not in ("begin", "end"):
                skeleton.parent.update(dict.fromkeys(rest, words[0]))
        except (ValueError, IndexError) as error:
            if isinstance(error, InputError):
                raise
            raise _unreadable(where, words) from error
    _check_tree(skeleton, path)
    return skeleton


def _unreadable(where: str, words: list[str]) -> InputError:
    return InputError(where, f"cannot be read: {shortened(' '.join(words))!r}", _REMEDY)


def _check_tree(skeleton: Skeleton, path: Path) -> None:
    """Raises InputError unless the bones form one tree, with sane numbers."""
    channels = 6 + sum(len(bone.freedom) for bone in skeleton.bones.values())
    check_joints(max(len(skeleton.bones), len(skeleton.parent)), channels, path)
    outside = [name for name in skeleton.bones if name not in skeleton.parent or name == _ROOT]
    outside += [_ROOT] if _ROOT in skeleton.parent else []
    outside += [
        name
        for pair in skeleton.parent.items()
        for name in pair
        if name != _ROOT and name not in skeleton.bones
    ]
    if not skeleton.bones or outside:
        problem = f"bones outside of one tree: {shortened(', '.join(outside) or 'all')}"
        raise InputError(path, problem, _REMEDY)
    for bone in skeleton.bones.values():
        numbers = [bone.axis, bone.direction * bone.length, skeleton.root_axis]
        check_sane(np.concatenate(numbers), path)
    _ordered(skeleton, path)


def _root_line(skeleton: Skeleton, key: str, rest: list[str], where: str) -> None:
    if key == "order":
        skeleton.root_order = tuple(word.lower() for word in rest)
        if sorted(skeleton.root_order) != ["rx", "ry", "rz", "tx", "ty", "tz"]:
            problem = f"the root's order is {shortened(' '.join(rest))}"
            raise InputError(where, problem, "it must be three positions and three angles")
    elif key == "axis":
        _check_xyz(rest[0], where)
    elif key == "orientation":
        skeleton.root_axis = _three(rest)


def _bone_line(bone: Bone, key: str, rest: list[str], where: str) -> None:
    if key == "direction":
        bone.direction = _three(rest)
    elif key == "length":
        bone.length = float(rest[0])
    elif key == "axis":
        bone.axis = _three(rest)
        _check_xyz(rest[3], where)
    elif key == "dof":
        bone.freedom = tuple(word.lower() for word in rest)
        if set(bone.freedom) - {"rx", "ry", "rz"} or len(set(bone.freedom)) != len(rest):
            problem = f"degrees of freedom {shortened(' '.join(rest))}"
            raise InputError(where, problem, "bones may turn (rx, ry, rz), not stretch")


def _three(words: list[str]) -> np.ndarray:
    """The first three words as numbers; ValueError if there are fewer."""
    x, y, z = words[:3]
    return np.array([float(x), float(y), float(z)])


def _check_xyz(order: str, where: str) -> None:
    if order.upper() != "XYZ":
        remedy = "only XYZ is supported, the order of CMU's files"
        raise InputError(where, f"the axis order is {shortened(order)}", remedy)


def read_amc(path: Path, skeleton: Skeleton) -> SkeletonMotion:
    """Reads a motion of the skeleton.

    Raises:
      InputError: unreadable, no frames, radians, a bone of the skeleton is missing in a frame, or a
        wrong number of values.
    """
    names = _ordered(skeleton, path)
    widths = {_ROOT: 6} | {name: len(skeleton.bones[name].freedom) for name in names}
    values: dict[str, list[list[float]]] = {name: [] for name, width in widths.items() if width}
    frames = 0
    for where, words in _lines(path):
        if words[0].startswith(":"):
            if words[0].upper() == ":RADIANS":
                raise InputError(where, "angles are in radians", _DEGREES)
        elif len(words) == 1 and words[0].isdecimal():
            _check_frame(values, frames, where)
            frames += 1
        else:
            try:
                numbers = [float(word) for word in words[1:]]
            except ValueError as error:
                raise _unreadable(where, words) from error
            known = words[0] in values and len(values[words[0]]) == frames - 1
            if not known or len(numbers) != widths[words[0]]:
                problem = f"{shortened(words[0])} with {len(numbers)} numbers does not belong here"
                raise InputError(where, problem, "is this the skeleton of this motion?")
            values[words[0]].append(numbers)
    _check_frame(values, frames, path)
    if not frames:
        raise InputError(path, "is an empty sequence (0 frames)", _REMEDY)
    arrays = {name: np.array(rows) for name, rows in values.items()}
    for numbers in arrays.values():
        check_sane(numbers, path)
    return _motion(skeleton, names, arrays, frames)


def _check_frame(values: dict[str, list[list[float]]], frames: int, where: object) -> None:
    """Raises InputError unless every bone has the values of so many frames."""
    if short := [name for name, rows in values.items() if len(rows) != frames]:
        problem = f"frame {frames} has no {shortened(', '.join(short))}"
        raise InputError(where, problem, f"it is perhaps cut off: {_REMEDY}")


def _ordered(skeleton: Skeleton, where: object) -> list[str]:
    """Names of the bones, parents first."""
    order, last = [], [_ROOT]
    while last:
        last = [
            name for name, parent in skeleton.parent.items() if parent in last and name not in order
        ]
        order += last
    if len(order) != len(skeleton.bones):
        raise InputError(where, "the hierarchy is not one tree", _REMEDY)
    return order


def _motion(
    skeleton: Skeleton, bones: list[str], values: dict[str, np.ndarray], frames: int
) -> SkeletonMotion:
    """The motion of the values (frames, width) of each bone."""
    rest = {name: bone.direction * bone.length for name, bone in skeleton.bones.items()}
    rest[_ROOT] = np.zeros(3)
    # 1. The root.
    names, parents, offsets = [_ROOT], [-1], [np.zeros(3)]
    column = dict(zip(skeleton.root_order, values[_ROOT].T, strict=True))
    root = np.stack([column[key] for key in ("tx", "ty", "tz")], 1)
    turns = [_turn(skeleton.root_axis, np.stack([column[key] for key in ("rx", "ry", "rz")], 1))]
    # 2. A joint at the start of each bone.
    for name in bones:
        bone, parent = skeleton.bones[name], skeleton.parent[name]
        angles = np.zeros((frames, 3))
        for i, freedom in enumerate(bone.freedom):
            angles[:, "xyz".index(freedom[1])] = values[name][:, i]
        names.append(name)
        parents.append(names.index(parent))
        offsets.append(rest[parent])
        turns.append(_turn(bone.axis, angles))
    # 3. A joint at the end of each bone without children.
    for name in (name for name in bones if name not in skeleton.parent.values()):
        names.append(f"{name}_end")
        parents.append(names.index(name))
        offsets.append(rest[name])
        turns.append(np.broadcast_to(np.eye(3), (frames, 3, 3)))
    return SkeletonMotion(tuple(names), tuple(parents), np.stack(offsets), np.stack(turns, 1), root)


def _turn(axis: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """C R C^-1 of Euler angles (N, 3) in degrees, R = Rz Ry Rx."""
    # Lower-case "xyz" means fixed axes.
    frame = Rotation.from_euler("xyz", axis, degrees=True)
    return (frame * Rotation.from_euler("xyz", angles, degrees=True) * frame.inv()).as_matrix()


def _lines(path: Path) -> Iterator[tuple[str, list[str]]]:
    """("file: line n", its words) of each line that is neither empty nor a comment."""
    try:
        text = path.read_text(encoding="latin1")
    except OSError as error:
        problem = f"cannot be read ({error.strerror})"
        raise InputError(path, problem, "check the path and its permissions") from error
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split("#")[0].split()
        if words:
            yield f"{path}: line {number}", words

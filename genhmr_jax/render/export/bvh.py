"""BioVision hierarchies (.bvh): the skeleton of a person and its motion in one text file."""

import os
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from smpl_jax import SmplModel

from genhmr_jax.geometry.motion import Motion
from genhmr_jax.io.atomic import atomic_path
from genhmr_jax.render.export.timeline import evenly, root_path
from genhmr_jax.render.rest import Rest, rest_of

UNITS = {"m": 1.0, "cm": 100.0}
"""Names of units of length -> units in a metre."""

_ROTATIONS = "Zrotation Xrotation Yrotation"
_POSITIONS = "Xposition Yposition Zposition"
# The vertex at which the bone of a joint without children ends; the head's ends at the top.
_ENDS = {
    "left_foot": "LBigToe", "right_foot": "RBigToe",
    "left_hand": "lmiddle", "right_hand": "rmiddle",
    **{f"{side}_{finger}3": f"{side[0]}{finger}" for side in ("left", "right")
       for finger in ("index", "middle", "pinky", "ring", "thumb")},
}  # fmt: skip


def save_bvh(path: str | os.PathLike, motion: Motion, body: SmplModel, units: str = "m") -> None:
    """Write the motion of a person as BVH, y up, from the first to the last known frame.

    The offsets are those of the person's shape in the rest pose (a T, z forward). The root has the
    position of the pelvis and a rotation, and every other joint a rotation, in degrees. The order
    Z, X, Y is a common one: R = Rz Rx Ry for column vectors. The angles of successive
    frames are as close to each other as the rotations permit. Camera axes are turned by half a turn
    about x.

    Args:
      path: of the file.
      motion: of the person.
      body: the body of the motion.
      units: "m" or "cm".

    Raises:
      ValueError: other units, or no frame is known.
      InputError: the file cannot be written.
    """
    if units not in UNITS:
        raise ValueError(f"units {units!r}: choose one of {', '.join(UNITS)}")
    scale = UNITS[units]
    motion, rate = evenly(motion)
    rest = rest_of(body, motion.betas)
    # 1. The hierarchy; `order` is that of the channels, a branch after the other.
    lines, order = ["HIERARCHY"], []
    _add_joint(lines, order, rest, _end_offsets(rest, body), 0, scale)
    # 2. A line for each frame.
    root, positions = root_path(motion, rest.joints[0])
    rotations = [root, *(Rotation.from_rotvec(motion.poses[:, j]) for j in range(1, len(order)))]
    angles = np.stack([_euler(rotations[j]) for j in order], 1).reshape(len(motion), -1)
    lines += ["MOTION", f"Frames: {len(motion)}", f"Frame Time: {1 / rate:.9f}"]
    for position, row in zip(positions * scale, angles, strict=True):
        numbers = [f"{value:.6f}" for value in position] + [f"{value:.4f}" for value in row]
        lines.append(" ".join(numbers))
    with atomic_path(path) as temporary:
        Path(temporary).write_text("\n".join(lines) + "\n", encoding="ascii")


def _add_joint(
    lines: list[str],
    order: list[int],
    rest: Rest,
    ends: dict[int, Float[np.ndarray, "3"]],
    joint: int,
    scale: float,
    depth: int = 0,
) -> None:
    """Append the lines of a joint and its descendants, and their indices to `order`."""
    order.append(joint)
    tab = "\t" * depth
    # The root's offset is 0: programs differ in whether they add it to the position.
    offset = rest.offsets[joint] if joint else np.zeros(3)
    text = lambda values: " ".join(f"{value:.6f}" for value in values * scale)
    channels = f"CHANNELS 3 {_ROTATIONS}" if joint else f"CHANNELS 6 {_POSITIONS} {_ROTATIONS}"
    lines += [f"{tab}{'JOINT' if joint else 'ROOT'} {rest.names[joint]}", f"{tab}{{"]
    lines += [f"{tab}\tOFFSET {text(offset)}", f"{tab}\t{channels}"]
    for child, above in enumerate(rest.parents):
        if above == joint:
            _add_joint(lines, order, rest, ends, child, scale, depth + 1)
    if joint in ends:
        lines += [f"{tab}\tEnd Site", f"{tab}\t{{"]
        lines += [f"{tab}\t\tOFFSET {text(ends[joint])}", f"{tab}\t}}"]
    lines.append(f"{tab}}}")


def _end_offsets(rest: Rest, body: SmplModel) -> dict[int, Float[np.ndarray, "3"]]:
    """From each joint without children to the end of its bone, metres."""
    ends = {}
    for joint in sorted(set(range(len(rest.parents))) - set(rest.parents)):
        vertex = body.vertex_ids.get(_ENDS.get(rest.names[joint], ""))
        if vertex is None:
            top = rest.vertices[:, 1].max() - rest.joints[joint, 1]
            ends[joint] = np.array([0.0, top, 0.0])
        else:
            ends[joint] = rest.vertices[vertex] - rest.joints[joint]
    return ends


def _euler(rotations: Rotation) -> Float[np.ndarray, "F 3"]:
    """Angles about the moving axes Z, X, Y in degrees, without jumps between frames.

    (z, x, y) and (z + 180, 180 - x, y + 180) are the same rotation, and so are angles that differ
    by whole turns: each frame takes what is nearest to the frame before.
    """
    with warnings.catch_warnings():
        # Where x is 90 degrees, y is undetermined; scipy sets it to 0, which is exact.
        warnings.filterwarnings("ignore", message="Gimbal lock")
        angles = rotations.as_euler("ZXY", degrees=True)
    both = np.stack([angles, angles * [1, -1, 1] + 180.0], 1)
    for frame in range(1, len(angles)):
        before = angles[frame - 1]
        near = both[frame] - 360.0 * np.round((both[frame] - before) / 360.0)
        angles[frame] = near[np.abs(near - before).sum(1).argmin()]
    return angles

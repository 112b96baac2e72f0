"""From the motion of another skeleton to SMPL's 24 joint rotations.

A source joint's rotation relative to its rest pose, G(t), becomes SMPL's G(t) A. The constant A
turns SMPL's limb at rest into the source's limb at rest, so that each thigh, shin, upper arm and
forearm has exactly the source's direction. Approximations:

* trunk, head and collars: A is the identity, since both rest poses stand upright and face +z; a
  bend is distributed over the spine as in the source;
* feet: only the splay of the legs at rest is removed; feet that are flat at rest are assumed in
  both skeletons;
* wrists follow the forearm at rest; the two hand joints do not turn;
* collars move only if the source recorded it. CMU did not: its shoulders have all of the motion.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from scipy.spatial.transform import Rotation
from smpl_jax.keypoints import SMPL24, SMPL24_PARENTS

from genhmr_jax.data.sources.skeleton import SkeletonMotion
from genhmr_jax.io.errors import InputError

# SMPL's limbs at rest: the vector from a joint to the next, metres of an average adult, rounded to
# 5 mm.
REST_LIMBS = {
    "left_hip": (0.040, -0.380, 0.005),
    "right_hip": (-0.040, -0.380, 0.005),
    "left_knee": (-0.015, -0.405, -0.040),
    "right_knee": (0.015, -0.405, -0.040),
    "left_shoulder": (0.260, -0.010, -0.020),
    "right_shoulder": (-0.260, -0.010, -0.020),
    "left_elbow": (0.255, 0.010, -0.005),
    "right_elbow": (-0.255, 0.010, -0.005),
}
_BEFORE = {"knee": "hip", "elbow": "shoulder"}  # the previous joint of the limb
_RELEASE = "is it of the release that the dataset's description names?"


@dataclasses.dataclass(frozen=True)
class JointMap:
    """The correspondence between a skeleton's joints and SMPL's.

    Attributes:
      joints: SMPL joint -> the source joint that turns it. Other SMPL joints turn with their
        parent.
      limbs: SMPL joint of REST_LIMBS -> the source joints at the limb's two ends.
    """

    joints: Mapping[str, str]
    limbs: Mapping[str, tuple[str, str]]

    def missing(self, names: tuple[str, ...]) -> list[str]:
        """Source joints that a skeleton with these `names` lacks."""
        needed = {*self.joints.values(), *(name for pair in self.limbs.values() for name in pair)}
        return sorted(needed - set(names))


def both_sides(names: Mapping[str, str], left: str, right: str) -> dict[str, str]:
    """Names of both sides, from those of the left; `left`, `right`: prefixes of source names."""
    mirrored = {
        smpl.replace("left_", "right_"): right + source.removeprefix(left)
        for smpl, source in names.items()
        if smpl.startswith("left_")
    }
    return dict(names) | mirrored


def to_smpl(motion: SkeletonMotion, joint_map: JointMap, where: object) -> np.ndarray:
    """Poses (N, 72) axis-angle radians, root first, in the world of the motion (y up).

    Raises:
      InputError: the skeleton lacks a joint, or a limb has no length.
    """
    if missing := joint_map.missing(motion.names):
        raise InputError(where, f"the skeleton has no {', '.join(missing)}", _RELEASE)
    _, turned = motion.forward()
    corrections = _corrections(motion, joint_map, where)
    world = np.empty((len(turned), 24, 3, 3))
    for j, (name, parent) in enumerate(zip(SMPL24, SMPL24_PARENTS, strict=True)):
        if name in joint_map.joints:
            source = motion.names.index(joint_map.joints[name])
            world[:, j] = turned[:, source] @ corrections.get(name, np.eye(3))
        else:
            world[:, j] = world[:, parent]
    local = world.copy()
    parents = np.array(SMPL24_PARENTS[1:])
    local[:, 1:] = world[:, parents].swapaxes(-1, -2) @ world[:, 1:]
    return Rotation.from_matrix(local.reshape(-1, 3, 3)).as_rotvec().reshape(-1, 72)


def _corrections(
    motion: SkeletonMotion, joint_map: JointMap, where: object
) -> dict[str, np.ndarray]:
    """A of each SMPL joint that needs one.

    Along a limb, each is the smallest turn after the previous one, so that there is no twist.
    """
    at_rest = dataclasses.replace(
        motion,
        rotations=np.broadcast_to(np.eye(3), (1, len(motion.names), 3, 3)),
        root=np.zeros((1, 3)),
    )
    rest = dict(zip(motion.names, at_rest.forward()[0][0], strict=True))
    corrections: dict[str, np.ndarray] = {}
    for name, (start, end) in joint_map.limbs.items():
        limb = rest[end] - rest[start]
        if np.linalg.norm(limb) < 1e-9:
            raise InputError(where, f"the limb {start}-{end} has no length", _RELEASE)
        side, part = name.split("_")
        above = corrections[f"{side}_{_BEFORE[part]}"] if part in _BEFORE else np.eye(3)
        corrections[name] = above @ _smallest_turn(np.array(REST_LIMBS[name]), above.T @ limb)
        if part == "knee":
            splay = Rotation.from_euler("z", np.arctan2(limb[0], -limb[1])).as_matrix()
            corrections[f"{side}_ankle"] = corrections[f"{side}_foot"] = splay
        if part == "elbow":
            corrections[f"{side}_wrist"] = corrections[name]
    return corrections


def _smallest_turn(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """The rotation (3, 3) by the smallest angle that turns one direction into another."""
    start, end = start / np.linalg.norm(start), end / np.linalg.norm(end)
    axis = np.cross(start, end)
    sine = np.linalg.norm(axis)
    if sine < 1e-12:
        if start @ end > 0:
            return np.eye(3)
        # Opposite directions: any perpendicular axis will do.
        axis = np.cross(start, np.eye(3)[np.argmin(np.abs(start))])
        sine = 0.0
    angle = np.arctan2(sine, start @ end)
    return Rotation.from_rotvec(axis / np.linalg.norm(axis) * angle).as_matrix()

"""Anatomical axes of the finger joints, from the rest geometry of any hand; on the host, by NumPy.

Each of the 15 joints HAND_JOINTS[1:] has three angles: flexion towards the palm, abduction, and
twist about its bone. For the index and the middle finger abduction is towards the thumb, for ring
and little finger away from it: together the fingers spread. The thumb's first joint (CMC) flexes
across the palm towards the little finger, is abducted away from the palm, and its twist turns the
pad to the fingers (opposition).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from smpl_jax import SmplModel

from genhmr_jax.geometry.hand import FINGERS, HAND_JOINTS, TIPS
from genhmr_jax.geometry.skeleton import forward_kinematics

ANGLES = ("flexion", "abduction", "twist")


@dataclass(frozen=True, eq=False)
class HandAxes:
    """The skeleton of a right hand with the axes of its joints; metres and radians.

    Attributes:
      axes: (15, 3, 3) unit axes of flexion, abduction and twist (rows) of the joints
        HAND_JOINTS[1:], in the frame of the rest pose.
      rest: (15, 3) angles of the rest pose: the flexion of each finger bone relative to the bone
        before it. Other angles, and all of the thumb, count from the rest pose.
      joints: (16, 3) joints at rest.
      ends: (15, 3) the end of the bone of each of the 15 joints at rest: the next joint or the tip.
      parents: the parent of each of the 16 joints.
      palm: unit vector out of the palm.
    """

    axes: Float[np.ndarray, "15 3 3"]
    rest: Float[np.ndarray, "15 3"]
    joints: Float[np.ndarray, "16 3"]
    ends: Float[np.ndarray, "15 3"]
    parents: tuple[int, ...]
    palm: Float[np.ndarray, "3"]

    def rotations_from_angles(
        self, angles: Float[np.ndarray, "N 15 3"]
    ) -> Float[np.ndarray, "N 15 3"]:
        """Axis-angle (radians) of anatomical angles (radians): flexion, abduction, twist.

        The axis of abduction moves with flexion, and that of twist with both, as in a universal
        joint: R = R_flexion R_abduction R_twist.
        """
        return self._rotations(angles).as_rotvec().reshape(-1, 15, 3).astype(np.float32)

    def rotmats_from_angles(
        self, angles: Float[np.ndarray, "N 15 3"]
    ) -> Float[np.ndarray, "N 15 3 3"]:
        """As `rotations_from_angles`, as matrices."""
        return self._rotations(angles).as_matrix().reshape(-1, 15, 3, 3)

    def _rotations(self, angles: np.ndarray) -> Rotation:
        turns = (np.asarray(angles, np.float64) - self.rest)[..., None] * self.axes
        flexion, abduction, twist = (
            Rotation.from_rotvec(turns[..., i, :].reshape(-1, 3)) for i in range(3)
        )
        return flexion * abduction * twist

    def angles_from_rotations(
        self, rotations: Float[np.ndarray, "N 15 3"]
    ) -> Float[np.ndarray, "N 15 3"]:
        """The inverse of `rotations_from_angles`, for abduction within 90 degrees."""
        matrices = Rotation.from_rotvec(np.reshape(rotations, (-1, 3))).as_matrix()
        local = np.einsum(
            "jai,njik,jbk->njab", self.axes, matrices.reshape(-1, 15, 3, 3), self.axes
        )
        # Axes 0, 1, 2 are orthonormal, right- or left-handed: a left-handed frame negates angles.
        hand = np.linalg.det(self.axes)
        abduction = np.arcsin(np.clip(local[..., 0, 2], -1, 1))
        flexion = np.arctan2(-local[..., 1, 2], local[..., 2, 2])
        twist = np.arctan2(-local[..., 0, 1], local[..., 0, 0])
        return np.stack([flexion, abduction, twist], -1) * hand[:, None] + self.rest

    def moved(
        self, rotmats: Float[np.ndarray, "N 15 3 3"], points: Float[np.ndarray, "15 K 3"]
    ) -> Float[np.ndarray, "N 15 K 3"]:
        """Points that are fixed to the 15 bones, metres, in a pose with the wrist as at rest.

        Args:
          rotmats: rotations relative to the parents.
          points: K points of each bone in the rest pose, such as `joints[1:]` or `ends`.
        """
        count = len(rotmats)
        root = np.broadcast_to(np.eye(3), (count, 1, 3, 3))
        offsets = self.joints.copy()
        offsets[1:] -= self.joints[list(self.parents[1:])]
        world, places = forward_kinematics(
            self.parents,
            np.broadcast_to(offsets, (count, 16, 3)),
            np.concatenate([root, rotmats], 1),
        )
        relative = points - self.joints[1:, None]
        return places[:, 1:, None] + np.einsum("njab,jkb->njka", world[:, 1:], relative)


def hand_axes(model: SmplModel) -> HandAxes:
    """The axes of a right hand of MANO's form, with its mean shape.

    The palm faces the cross product of the directions from the wrist to the bases of index and
    little finger. A finger flexes in the plane of its own direction and the palm's. The thumb's
    last two joints flex towards the base of the little finger.

    Raises:
      ValueError: a left hand; its poses are the mirror images of those of the right hand.
    """
    joints = np.asarray(model.joint_template, np.float64)
    template = np.asarray(model.template, np.float64).T
    place = dict(zip(HAND_JOINTS, joints, strict=True))
    if place["middle1"][0] > place["wrist"][0]:
        raise ValueError("a left hand has no axes here: use the right hand and mirror_pose")
    palm = _unit(np.cross(place["index1"] - place["wrist"], place["pinky1"] - place["wrist"]))
    radial = _unit(place["index1"] - place["pinky1"])  # towards the thumb
    axes, rest, ends = np.zeros((15, 3, 3)), np.zeros((15, 3)), np.zeros((15, 3))
    for (name, finger), tip in zip(FINGERS.items(), TIPS, strict=True):
        points = [*joints[list(finger)], template[model.vertex_ids[tip]]]
        bones = [_unit(b - a) for a, b in zip(points, points[1:], strict=False)]
        ends[np.array(finger) - 1] = points[1:]
        if name == "thumb":
            pad = place["pinky1"] - points[3]
            axes[finger[0] - 1] = _frame(bones[0], -radial, palm)
            for part in (1, 2):
                axes[finger[part] - 1] = _frame(bones[part], pad, None)
            continue
        along = _unit(points[2] - points[0])
        side = radial if name in ("index", "middle") else -radial
        before = _unit(points[0] - place["wrist"])
        for part, bone in enumerate(bones):
            axes[finger[part] - 1] = _frame(along, palm, side)
            flexion = axes[finger[part] - 1, 0]
            rest[finger[part] - 1, 0] = _angle_about(flexion, before, bone)
            before = bone
    parents = tuple(int(parent) for parent in model.parents)
    return HandAxes(axes, rest, joints, ends, parents, palm)


def _frame(along: np.ndarray, flexed: np.ndarray, abducted: np.ndarray | None) -> np.ndarray:
    """Orthonormal axes of flexion, abduction and twist (rows).

    Flexion moves the direction `along` towards `flexed`, and abduction towards `abducted` (default:
    any side). Positive twist about the bone turns the way that flexion axis and palm agree on: the
    pad of the thumb turns to the fingers.
    """
    flexion = _unit(np.cross(along, flexed))
    towards = np.cross(flexion, along)  # `flexed`, orthogonal to the bone
    abduction = (
        towards
        if abducted is None
        else towards * np.sign(np.dot(np.cross(along, abducted), towards))
    )
    return np.stack([flexion, abduction, along])


def _angle_about(axis: np.ndarray, start: np.ndarray, end: np.ndarray) -> float:
    """The angle, radians, from one direction to another about an axis."""
    start, end = (v - np.dot(v, axis) * axis for v in (start, end))
    return float(np.arctan2(np.dot(np.cross(start, end), axis), np.dot(start, end)))


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)

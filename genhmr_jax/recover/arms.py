"""An arm that follows the hand which was found at its wrist: elbow and wrist of a body. NumPy."""

import dataclasses
from typing import Protocol

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation
from smpl_jax import SmplModel
from smpl_jax.keypoints import SMPL24, SMPL24_PARENTS

from genhmr_jax.geometry.fingers import hand_rows
from genhmr_jax.geometry.hand import HAND_JOINTS, MANO_FROM_HAND21
from genhmr_jax.geometry.skeleton import forward_kinematics
from genhmr_jax.geometry.wrist import TOLERANCE, SolvedWrist, solve_wrist
from genhmr_jax.recover.hands import HandMeshes

MOST_APART = 0.15
"""Largest distance of a hand's wrist from the body's, parallel to the image plane, metres."""
DEPTH_RATIO = 2.0
"""Largest ratio of their distances from the camera, which is that of their apparent sizes."""
MOST_TURN = 30.0
"""Largest turn of the forearm that brings a hand to its place in the photo, degrees."""
_IN_HAND21 = np.array(MANO_FROM_HAND21[: len(HAND_JOINTS)])


class Bodies(Protocol):
    """The bodies of one photo or frame: fields of recover.people.People."""

    global_orient: Float[np.ndarray, "P 3"]
    body_pose: Float[np.ndarray, "P 69"]
    betas: Float[np.ndarray, "P 10"]
    joints: Float[np.ndarray, "P 24 3"]
    focal_length: np.ndarray
    principal_point: Float[np.ndarray, "2"]


@dataclasses.dataclass(frozen=True, eq=False)
class Arm:
    """One arm of a person of `people`, and a hand of `hands` that was found at its wrist.

    Attributes:
      people, person, side: whose arm, "left" or "right".
      hands, hand: of the same photo and camera.
      rest: (52, 3) joints of the person's shape at rest, metres.
    """

    people: Bodies
    person: int
    side: str
    hands: HandMeshes
    hand: int
    rest: Float[np.ndarray, "52 3"]

    def fits(self) -> bool:
        """Whether the hand is where the wrist is, and as large as it should be there."""
        depth, distance = float(self._wrist()[2]), float(self.hands.joints[self.hand, 0, 2])
        if depth <= 0 or distance <= 0:
            return False
        pixels = self.hands.keypoints2d[self.hand, 0, :2] - self._project(self._wrist())
        apart = float(np.linalg.norm(pixels)) * depth / float(self.people.focal_length)
        return apart <= MOST_APART and 1 / DEPTH_RATIO <= distance / depth <= DEPTH_RATIO

    def follow(self) -> SolvedWrist | None:
        """Elbow and wrist for which the hand has its orientation, and its place in the photo.

        The forearm turns about the elbow, so that the joints of the hand lie on their keypoints as
        well as a shift can achieve it. If that is not plausible, the forearm keeps its direction.

        Returns:
          None: neither is plausible; body and hand contradict each other.
        """
        hand = Rotation.from_rotvec(self.hands.global_orient[self.hand]).as_matrix()
        turn, upper_arm = self._turn_of_forearm(hand), self._world(self._index("shoulder"))
        elbow = Rotation.from_rotvec(self._pose()[self._index("elbow")]).as_matrix()
        bone = self.rest[self._index("wrist")] - self.rest[self._index("elbow")]
        for turned in (upper_arm.T @ turn @ upper_arm @ elbow, elbow):
            axis = bone / np.linalg.norm(bone)
            solved = solve_wrist(turned, upper_arm, hand, axis, self.side == "right")
            if solved.angles.excess <= TOLERANCE:
                return solved
        return None

    def _turn_of_forearm(self, hand: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"]:
        """The turn, in camera axes, that brings the hand to its keypoints; the identity if none."""
        # 1. The shift of the hand in the photo: the mean over its joints.
        joints = self._wrist() + self._hand_at_origin() @ hand.T
        found = self.hands.keypoints2d[self.hand][_IN_HAND21]
        known = (found[:, 2] > 0) & (joints[:, 2] > 0)
        if not known.any():
            return np.eye(3)
        pixels = (found[known, :2] - self._project(joints[known])).mean(0)
        # 2. The smallest turn of the forearm towards the shifted wrist.
        shift = np.append(pixels * self._wrist()[2] / float(self.people.focal_length), 0.0)
        bone = self._wrist() - self.people.joints[self.person, self._index("elbow")]
        turn = _smallest_turn(bone, bone + shift)
        return (
            turn if Rotation.from_matrix(turn).magnitude() <= np.radians(MOST_TURN) else np.eye(3)
        )

    def _hand_at_origin(self) -> Float[np.ndarray, "16 3"]:
        """The joints of the hand of the person's shape, posed; its wrist is the origin."""
        rows = [self._index("wrist"), *range(len(self.rest))[hand_rows(self.side)]]
        pose = np.concatenate([np.zeros((1, 3)), self.hands.hand_pose[self.hand].reshape(15, 3)])
        parents = [-1 if part == 0 else 0 if part % 3 == 1 else part - 1 for part in range(16)]
        places = self.rest[rows]
        offsets = places - np.where(np.array(parents)[:, None] < 0, places, places[parents])
        turns = Rotation.from_rotvec(pose).as_matrix()
        return forward_kinematics(parents, offsets[None], turns[None])[1][0]

    def _index(self, name: str) -> int:
        return SMPL24.index(f"{self.side}_{name}")

    def _wrist(self) -> Float[np.ndarray, "3"]:
        return self.people.joints[self.person, self._index("wrist")].astype(np.float64)

    def _pose(self) -> Float[np.ndarray, "24 3"]:
        root, body = self.people.global_orient[self.person], self.people.body_pose[self.person]
        return np.concatenate([root, body]).reshape(24, 3).astype(np.float64)

    def _world(self, joint: int) -> Float[np.ndarray, "3 3"]:
        """Orientation of a joint in camera axes."""
        turns = Rotation.from_rotvec(self._pose()).as_matrix()
        return forward_kinematics(SMPL24_PARENTS, np.zeros((1, 24, 3)), turns[None])[0][0, joint]

    def _project(self, points: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 2"]:
        return project(self.people, points)


def rest_joints(model: SmplModel, betas: Float[np.ndarray, "P 10"]) -> Float[np.ndarray, "P J 3"]:
    """The joints of shapes in the rest pose, metres, float64."""
    directions = np.asarray(model.joint_shapedirs, np.float64)
    return np.asarray(model.joint_template) + np.einsum("ps,sjc->pjc", betas, directions)


def project(people: Bodies, points: Float[np.ndarray, "*n 3"]) -> Float[np.ndarray, "*n 2"]:
    """Points in camera coordinates in px of the photo."""
    return points[..., :2] / points[..., 2:] * people.focal_length + people.principal_point


def _smallest_turn(
    start: Float[np.ndarray, "3"], end: Float[np.ndarray, "3"]
) -> Float[np.ndarray, "3 3"]:
    """The smallest rotation from one direction to another."""
    start, end = (v / np.linalg.norm(v) for v in (start, end))
    axis = np.cross(start, end)
    sine = np.linalg.norm(axis)
    if sine < 1e-9:
        return np.eye(3)
    angle = np.arctan2(sine, start @ end)
    return Rotation.from_rotvec(axis / sine * angle).as_matrix()

"""The hands of the people of a photo, on their bodies (`genhmr recover --hands`).

detect_hands at the wrists -> HandRecoverer -> for each arm: believe the hand or not, turn wrist and
forearm -> People with fingers
"""

import dataclasses
import pathlib
from collections.abc import Iterable

import numpy as np
import smpl_jax
from jaxtyping import Array, Bool, Float
from scipy.spatial.transform import Rotation
from smpl_jax import SmplModel
from smpl_jax.keypoints import SMPL24

from genhmr_jax.core.system import PhotoCamera
from genhmr_jax.detect.detections import Detections
from genhmr_jax.detect.hands import detect_hands
from genhmr_jax.geometry.fingers import (
    BODY_JOINTS,
    SIDES,
    fingers_of_hand_joint,
    full_pose,
    knuckle_rows,
    load_fingers,
    plain_body,
)
from genhmr_jax.geometry.keypoints import keypoint_points
from genhmr_jax.io.program_store import stored
from genhmr_jax.recover.arms import Arm, Bodies, project, rest_joints
from genhmr_jax.recover.hands import HandMeshes, HandRecoverer, PreparedHands, load_hands
from genhmr_jax.recover.options import RecoverOptions
from genhmr_jax.recover.people import People

MIN_SCORE = 0.5
"""Probability from which a detected hand is used."""


@dataclasses.dataclass(frozen=True)
class HandsOnBody:
    """A model of hands, and a body with fingers.

    Attributes:
      hands: the model.
      fingers: the body with 52 joints.
      body: its SMPL form, with which the bodies are recovered.
    """

    hands: HandRecoverer
    fingers: SmplModel
    body: SmplModel

    def prepare(self, image: np.ndarray, people: Detections, photo: PhotoCamera) -> PreparedHands:
        """The hands of a photo that are at a wrist of these people, ready to be solved.

        Args:
          image: uint8 (H, W, 3), RGB.
          people: of the photo.
          photo: the camera with which the people are recovered.
        """
        found = detect_hands(image, people, max_hands=max(16, 3 * len(people)))
        found = found.only((found.person >= 0) & (found.scores >= MIN_SCORE))
        return self.hands.prepare(image, found, photo)

    def put(self, people: People, hands: PreparedHands, options: RecoverOptions) -> People:
        """The people with the fingers of their detected hands; see `put_hands`.

        Args:
          people: the recovered people.
          hands: of `prepare`, for the same people in the same order.
          options: only the seed is used.
        """
        own = RecoverOptions(seed=options.seed)
        return put_hands(people, self.hands.recover_prepared(hands, own), self.fingers)


def load_hands_on_body(body: str | pathlib.Path = "neutral") -> HandsOnBody:
    """Load the shipped model of hands, and a body with fingers.

    Args:
      body: "neutral", or the path of an SMPL-H file.

    Raises:
      InputError: the body has no fingers.
    """
    # The free body is exactly that of `genhmr recover` without --hands.
    return HandsOnBody(load_hands(), load_fingers(body), plain_body(body))


def put_hands(people: People, hands: HandMeshes, fingers: SmplModel) -> People:
    """Pose the people's bodies with fingers.

    Each wrist takes one hand at most, that of the highest score. A hand that is not where the
    wrist is, or not of its size, is left out. The orientation of the hand becomes the wrist's, the
    forearm turns towards the hand, and elbow and wrist share the twist about it (geometry.wrist).
    Where they would leave their ranges of motion by more than TOLERANCE, elbow and wrist of the
    body are kept, and only the fingers are used. Without a hand, the four fingers turn as the
    body's joint `hand`.

    Args:
      people: of a body with SMPL's joints.
      hands: of the same photo and camera; `person` are rows of `people`.
      fingers: the body of the people with fingers.

    Returns:
      the people with hand poses; vertices, joints and projected keypoints are those of the new
      pose.
    """
    found = pose_arms(people, hands, range(len(hands)), fingers)
    count = len(people)
    left, right = found.fingers.reshape(2, count, 45)
    return dataclasses.replace(
        people,
        body_pose=found.pose[:, 1:].reshape(count, 69),
        left_hand_pose=left,
        right_hand_pose=right,
        left_hand_confidence=found.confidence[0],
        right_hand_confidence=found.confidence[1],
        wrist_from_hand=found.wrists.T,
        **_posed(people, found.pose, {"left": left, "right": right}, fingers),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class ArmPoses:
    """The arms of P bodies that follow their hands; the first axis of two is that of SIDES.

    Attributes:
      pose: (P, 24, 3) axis-angle, radians; elbows and wrists are changed.
      fingers: (2, P, 15, 3) axis-angle, radians.
      confidence: (2, P) 0..1; 0 without a hand.
      wrists: (2, P) whether elbow and wrist follow the hand.
    """

    pose: Float[np.ndarray, "P 24 3"]
    fingers: Float[np.ndarray, "2 P 15 3"]
    confidence: Float[np.ndarray, "2 P"]
    wrists: Bool[np.ndarray, "2 P"]


def pose_arms(
    people: Bodies, hands: HandMeshes, numbers: Iterable[int], fingers: SmplModel
) -> ArmPoses:
    """The arms of people with the hands that were found at their wrists; see `put_hands`.

    Args:
      people: of a photo or a frame.
      hands: with the same camera; `person` are rows of `people`.
      numbers: those of the hands that are of this photo or frame.
      fingers: the body of the people with fingers.
    """
    count = len(people.betas)
    pose = np.concatenate([people.global_orient, people.body_pose], -1).reshape(count, 24, 3)
    rest = rest_joints(fingers, people.betas)
    joints = [SMPL24.index(f"{side}_hand") for side in SIDES]
    poses = np.stack([fingers_of_hand_joint(pose[:, joint]) for joint in joints])
    confidence, wrists = np.zeros((2, count), np.float32), np.zeros((2, count), bool)
    for number in sorted(numbers, key=lambda number: -hands.scores[number]):
        person, side = int(hands.person[number]), int(hands.right[number])
        arm = Arm(people, person, SIDES[side], hands, int(number), rest[person])
        if confidence[side, person] > 0 or not arm.fits():
            continue
        poses[side, person] = hands.hand_pose[number].reshape(15, 3)
        trust = hands.scores[number] * hands.joint_confidence[number].mean()
        confidence[side, person] = trust
        if (solved := arm.follow()) is not None:
            wrists[side, person] = True
            for name, turn in (("elbow", solved.elbow), ("wrist", solved.wrist)):
                turned = Rotation.from_matrix(turn).as_rotvec()
                pose[person, SMPL24.index(f"{SIDES[side]}_{name}")] = turned
    return ArmPoses(pose, poses, confidence, wrists)


def _posed(
    people: People,
    pose: Float[np.ndarray, "P 24 3"],
    hands: dict[str, Float[np.ndarray, "P 45"]],
    fingers: SmplModel,
) -> dict[str, np.ndarray]:
    """The fields of People that follow from the pose, for a body with fingers."""
    count = len(people)
    if not count:
        return {}
    body = pose[:, 1:].reshape(count, 69)
    full = full_pose(people.global_orient, body, hands["left"], hands["right"])
    names = tuple(map(str, people.keypoint_names))
    # One person after the other: one program serves any number of people.
    rows = zip(people.betas, full.astype(np.float32), people.translation, strict=True)
    found = [_pose_fingers(fingers, *row, names) for row in rows]
    vertices, joints, points = (np.stack(each) for each in zip(*found, strict=True))
    # SMPL's joint of a hand is between the four knuckles, which are fixed to the wrist.
    knuckles = [joints[:, knuckle_rows(side)].mean(1, keepdims=True) for side in SIDES]
    joints = np.concatenate([joints[:, :BODY_JOINTS], *knuckles], 1)
    fields = {"vertices": vertices, "joints": joints, "joints2d": project(people, joints)}
    if people.projected_keypoints is not None:
        fields["projected_keypoints"] = project(people, points)
    return fields


@stored("names")
def _pose_fingers(
    fingers: SmplModel,
    betas: Float[Array, "10"],
    pose: Float[Array, "156"],
    translation: Float[Array, "3"],
    names: tuple[str, ...],
) -> tuple[Float[Array, "V 3"], Float[Array, "52 3"], Float[Array, "K 3"]]:
    """Vertices, joints and the keypoints of these names, metres."""
    output = smpl_jax.forward(fingers, betas, pose, translation)
    return output.vertices, output.joints, keypoint_points(fingers, output, names)

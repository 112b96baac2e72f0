"""The hands of the people of a photo, on their bodies (`genhmr recover --hands`).

detect_hands at the wrists -> HandRecoverer -> for each arm: believe the hand or not, turn wrist and
forearm -> People with fingers
"""

import dataclasses
import pathlib

import numpy as np
import smpl_jax
from jaxtyping import Array, Float
from scipy.spatial.transform import Rotation
from smpl_jax import SmplModel
from smpl_jax.keypoints import SMPL24, SMPL24_PARENTS

from genhmr_jax.core.system import PhotoCamera
from genhmr_jax.detect.detections import Detections
from genhmr_jax.detect.hands import Hands, detect_hands
from genhmr_jax.geometry.bodies import available_bodies, load_body
from genhmr_jax.geometry.fingers import (
    BODY_JOINTS,
    SIDES,
    fingers_of_hand_joint,
    full_pose,
    knuckle_rows,
    load_fingers,
    without_fingers,
)
from genhmr_jax.geometry.keypoints import keypoint_points
from genhmr_jax.geometry.skeleton import forward_kinematics
from genhmr_jax.geometry.wrist import TOLERANCE, SolvedWrist, solve_wrist
from genhmr_jax.io.program_store import stored
from genhmr_jax.recover.hands import HandMeshes, HandRecoverer, load_hands
from genhmr_jax.recover.options import RecoverOptions
from genhmr_jax.recover.people import People

MOST_APART = 0.15
"""Largest distance of a hand's wrist from the body's, parallel to the image plane, metres."""
DEPTH_RATIO = 2.0
"""Largest ratio of their distances from the camera, which is that of their apparent sizes."""
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

    def detect(self, image: np.ndarray, people: Detections) -> Hands:
        """The hands of a photo (uint8 (H, W, 3), RGB) that are at a wrist of these people."""
        found = detect_hands(image, people, max_hands=max(16, 3 * len(people)))
        return found.only((found.person >= 0) & (found.scores >= MIN_SCORE))

    def put(
        self, people: People, found: Hands, photo: PhotoCamera, options: RecoverOptions
    ) -> People:
        """The people with the fingers of their detected hands; see `put_hands`.

        Args:
          people: the recovered people.
          found: of `detect`, for the same people in the same order.
          photo: the camera with which the people were recovered.
          options: only the seed is used.
        """
        size = (int(people.image_size[0]), int(people.image_size[1]))
        own = RecoverOptions(seed=options.seed)
        return put_hands(people, self.hands.of_hands(found, photo, size, own), self.fingers)


def load_hands_on_body(body: str | pathlib.Path = "neutral") -> HandsOnBody:
    """Load the shipped model of hands, and a body with fingers.

    Args:
      body: "neutral", or the path of an SMPL-H file.

    Raises:
      InputError: the body has no fingers.
    """
    fingers = load_fingers(body)
    # The free body is exactly that of `genhmr recover` without --hands.
    plain = load_body(body) if str(body) in available_bodies() else without_fingers(fingers)
    return HandsOnBody(load_hands(), fingers, plain)


def put_hands(people: People, hands: HandMeshes, fingers: SmplModel) -> People:
    """Pose the people's bodies with fingers.

    Each wrist takes one hand at most, that of the highest score. A hand that is not where the
    wrist is, or not of its size, is left out. The orientation of the hand becomes the wrist's;
    elbow and wrist share the twist about the forearm (geometry.wrist). Where they would leave their
    ranges of motion by more than TOLERANCE, elbow and wrist of the body are kept, and only the
    fingers are used. Without a hand, the four fingers turn as the body's joint `hand`.

    Args:
      people: of a body with SMPL's joints.
      hands: of the same photo and camera; `person` are rows of `people`.
      fingers: the body of the people with fingers.

    Returns:
      the people with hand poses; vertices, joints and projected keypoints are those of the new
      pose.
    """
    count = len(people)
    pose = np.concatenate([people.global_orient, people.body_pose], -1).reshape(count, 24, 3)
    axes = _forearms(fingers, people.betas)
    poses, confidence, wrists = {}, {}, {}
    for side in SIDES:
        joint = SMPL24.index(f"{side}_hand")
        poses[side] = fingers_of_hand_joint(pose[:, joint])
        confidence[side] = np.zeros(count, np.float32)
        wrists[side] = np.zeros(count, bool)
    world = _world_rotations(pose)
    for number in np.argsort(-hands.scores, kind="stable"):
        person, side = int(hands.person[number]), SIDES[int(hands.right[number])]
        if confidence[side][person] > 0 or not fits(people, person, side, hands, number):
            continue
        poses[side][person] = hands.hand_pose[number].reshape(15, 3)
        trust = hands.scores[number] * hands.joint_confidence[number].mean()
        confidence[side][person] = trust
        hand, axis = hands.global_orient[number], axes[side][person]
        solved = _arm(pose[person], world[person], hand, axis, side)
        if solved.angles.excess <= TOLERANCE:
            wrists[side][person] = True
            for name, turn in (("elbow", solved.elbow), ("wrist", solved.wrist)):
                pose[person, SMPL24.index(f"{side}_{name}")] = Rotation.from_matrix(
                    turn
                ).as_rotvec()
    flat = {side: poses[side].reshape(count, 45) for side in SIDES}
    return dataclasses.replace(
        people,
        body_pose=pose[:, 1:].reshape(count, 69),
        left_hand_pose=flat["left"],
        right_hand_pose=flat["right"],
        left_hand_confidence=confidence["left"],
        right_hand_confidence=confidence["right"],
        wrist_from_hand=np.stack([wrists["left"], wrists["right"]], -1),
        **_posed(people, pose, flat, fingers),
    )


def fits(people: People, person: int, side: str, hands: HandMeshes, number: int) -> bool:
    """Whether a hand is where the person's wrist is, and as large as it should be there."""
    joint = SMPL24.index(f"{side}_wrist")
    depth = float(people.joints[person, joint, 2])
    if depth <= 0 or hands.joints[number, 0, 2] <= 0:
        return False
    pixels = hands.keypoints2d[number, 0, :2] - people.joints2d[person, joint]
    apart = float(np.linalg.norm(pixels)) * depth / float(people.focal_length)
    ratio = float(hands.joints[number, 0, 2]) / depth
    return apart <= MOST_APART and 1 / DEPTH_RATIO <= ratio <= DEPTH_RATIO


def _arm(
    pose: Float[np.ndarray, "24 3"],
    world: Float[np.ndarray, "24 3 3"],
    hand: Float[np.ndarray, "3"],
    axis: Float[np.ndarray, "3"],
    side: str,
) -> SolvedWrist:
    """Elbow and wrist of a person for the orientation of a hand, axis-angle in camera axes."""
    elbow = Rotation.from_rotvec(pose[SMPL24.index(f"{side}_elbow")]).as_matrix()
    upper_arm = world[SMPL24.index(f"{side}_shoulder")]
    wanted = Rotation.from_rotvec(hand).as_matrix()
    return solve_wrist(elbow, upper_arm, wanted, axis, side == "right")


def _world_rotations(pose: Float[np.ndarray, "P 24 3"]) -> Float[np.ndarray, "P 24 3 3"]:
    """Orientations of the joints in camera axes."""
    turns = Rotation.from_rotvec(pose.reshape(-1, 3).astype(np.float64)).as_matrix()
    turns = turns.reshape(*pose.shape, 3)
    return forward_kinematics(SMPL24_PARENTS, np.zeros(pose.shape), turns)[0]


def _forearms(
    model: SmplModel, betas: Float[np.ndarray, "P 10"]
) -> dict[str, Float[np.ndarray, "P 3"]]:
    """Unit vectors from elbow to wrist at rest, by side."""
    directions, axes = np.asarray(model.joint_shapedirs, np.float64), {}
    joints = np.asarray(model.joint_template) + np.einsum("ps,sjc->pjc", betas, directions)
    for side in SIDES:
        elbow, wrist = (SMPL24.index(f"{side}_{name}") for name in ("elbow", "wrist"))
        bones = joints[:, wrist] - joints[:, elbow]
        axes[side] = bones / np.linalg.norm(bones, axis=-1, keepdims=True)
    return axes


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
    fields = {"vertices": vertices, "joints": joints, "joints2d": _projected(people, joints)}
    if people.projected_keypoints is not None:
        fields["projected_keypoints"] = _projected(people, points)
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


def _projected(people: People, points: Float[np.ndarray, "P K 3"]) -> Float[np.ndarray, "P K 2"]:
    """Points in camera coordinates in px of the photo."""
    return points[..., :2] / points[..., 2:] * people.focal_length + people.principal_point

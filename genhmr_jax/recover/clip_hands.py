"""The hands of the people of a clip (`genhmr recover CLIP --hands`): a pass over the frames.

frames of a chunk -> hands at the wrists -> HandRecoverer -> arms of the steady bodies
all frames -> steady fingers, elbows and wrists -> Clip
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import smpl_jax
from jaxtyping import Array, Bool, Float, Int
from scipy.spatial.transform import Rotation
from smpl_jax import SmplModel
from smpl_jax.keypoints import SMPL24

from genhmr_jax.core.inputs import joined
from genhmr_jax.core.system import PhotoCamera
from genhmr_jax.detect.detections import Detections
from genhmr_jax.detect.hands import Hands
from genhmr_jax.geometry.fingers import (
    BODY_JOINTS,
    SIDES,
    fingers_of_hand_joint,
    full_pose,
    knuckle_rows,
)
from genhmr_jax.geometry.keypoints import keypoint_points
from genhmr_jax.geometry.motion import ABSENT, OBSERVED
from genhmr_jax.geometry.rotation_smoothing import smoothed
from genhmr_jax.io.video import FrameSource
from genhmr_jax.recover.arms import project
from genhmr_jax.recover.clip import Clip
from genhmr_jax.recover.hands import PreparedHands
from genhmr_jax.recover.hands_on_body import HandsOnBody, pose_arms
from genhmr_jax.recover.options import RecoverOptions

CHUNK = 16
"""Frames whose hands are solved together, and bodies that are posed together."""
DEVIATION = 0.08
"""Seconds: of the kernel that smooths fingers, elbows and wrists."""
TRUST = 0.02
"""Weight of the body's own hand, elbow and wrist, where that of sure hands in all frames is 1."""
_ARM = [[SMPL24.index(f"{side}_{name}") for name in ("elbow", "wrist")] for side in SIDES]


class _Seen(NamedTuple):
    """A frame, its people, and the hands that are at their wrists."""

    frame: int
    people: Int[np.ndarray, "p"]
    hands: PreparedHands


class _FrameBodies(NamedTuple):
    """Some people in a frame, as recover.arms.Bodies."""

    global_orient: np.ndarray
    body_pose: np.ndarray
    betas: np.ndarray
    joints: np.ndarray
    focal_length: np.ndarray
    principal_point: np.ndarray


@dataclasses.dataclass(eq=False)
class _Found:
    """What single frames say of P people in F frames; the first axis is that of SIDES.

    Attributes:
      fingers: (2, P, F, 15, 3), arms: (2, P, F, 2, 3) of elbow and wrist; axis-angle, radians.
      confidence: (2, P, F) of the fingers; 0 without a hand.
      wrists: (2, P, F) whether the arm follows the hand.
    """

    fingers: Float[np.ndarray, "2 P F 15 3"]
    arms: Float[np.ndarray, "2 P F 2 3"]
    confidence: Float[np.ndarray, "2 P F"]
    wrists: Bool[np.ndarray, "2 P F"]


def with_hands(
    clip: Clip, source: FrameSource, hands: HandsOnBody, options: RecoverOptions
) -> Clip:
    """The clip with the fingers of its people, and arms that follow their hands.

    In each frame a hand is used as in a photo (hands_on_body.put_hands). Fingers, and the turns of
    elbows and wrists towards the hands, are then smoothed over time, weighted by the confidence of
    the hands; where no hand is found for a while, they become those of the body.

    Args:
      clip: the people, recovered with `hands.body`.
      source: the frames; the first ones are those of the clip.
      hands: of hands_on_body.load_hands_on_body.
      options: only the seed is used.
    """
    found = _found(clip, source, hands, options)
    pose = np.concatenate([clip.global_orient, clip.body_pose], -1)
    pose = pose.reshape(len(clip), len(clip.times), 24, 3).copy()
    flat = np.zeros((2, len(clip), len(clip.times), 45), np.float32)
    confidence = np.zeros((2, len(clip), len(clip.times)), np.float32)
    for person in range(len(clip)):
        here = clip.state[person] != ABSENT
        how = {"times": clip.times[here], "deviation": DEVIATION, "trust": TRUST}
        for side in range(len(SIDES)):
            own = pose[person, here]
            sure = found.confidence[side, person, here]
            usual = fingers_of_hand_joint(own[:, SMPL24.index(f"{SIDES[side]}_hand")])
            means, share = smoothed(found.fingers[side, person, here], sure, usual, **how)
            flat[side, person, here] = means.reshape(len(means), 45)
            confidence[side, person, here] = share * _nearest(sure)
            sure = sure * found.wrists[side, person, here]
            arms = found.arms[side, person, here]
            own[:, _ARM[side]] = _steady_arms(own[:, _ARM[side]], arms, sure, how)
            pose[person, here] = own
    posed = dataclasses.replace(
        clip,
        body_pose=pose[:, :, 1:].reshape(*clip.body_pose.shape),
        left_hand_pose=flat[0],
        right_hand_pose=flat[1],
        left_hand_confidence=confidence[0],
        right_hand_confidence=confidence[1],
    )
    return dataclasses.replace(posed, **_joints(posed, hands.fingers))


def _steady_arms(
    own: Float[np.ndarray, "F 2 3"],
    found: Float[np.ndarray, "F 2 3"],
    sure: Float[np.ndarray, "F"],
    how: dict[str, Any],
) -> Float[np.ndarray, "F 2 3"]:
    """Elbow and wrist that follow the hands; the turn from the body's own ones is smooth.

    The rotations themselves are not smoothed: a fast motion of the body stays as it is.
    """
    rotations = lambda turns: Rotation.from_rotvec(np.reshape(turns, (-1, 3)))
    change = (rotations(own).inv() * rotations(found)).as_rotvec().reshape(own.shape)
    change, _ = smoothed(change, sure, np.zeros_like(change), **how)
    return (rotations(own) * rotations(change)).as_rotvec().reshape(own.shape)


def _nearest(confidence: Float[np.ndarray, "F"]) -> Float[np.ndarray, "F"]:
    """The confidence of the nearest frame that has one; 0 without any."""
    known, every = np.flatnonzero(confidence > 0), np.arange(len(confidence))
    if not len(known):
        return np.zeros_like(confidence)
    after = np.searchsorted(known, every).clip(0, len(known) - 1)
    before = (after - 1).clip(0)
    nearer = np.abs(known[before] - every) <= np.abs(known[after] - every)
    return confidence[known[np.where(nearer, before, after)]]


def _found(clip: Clip, source: FrameSource, hands: HandsOnBody, options: RecoverOptions) -> _Found:
    """The arms of all frames, each by itself."""
    size = len(clip), len(clip.times)
    found = _Found(
        np.zeros((2, *size, 15, 3)), np.zeros((2, *size, 2, 3)), np.zeros((2, *size)),
        np.zeros((2, *size), bool),
    )  # fmt: skip
    own = RecoverOptions(seed=options.seed)
    for chunk in _chunks(clip, source, hands):
        # 1. The hands of all frames of the chunk.
        together = _joined([seen.hands for seen in chunk])
        meshes = hands.hands.recover_prepared(together, own)
        # 2. The arms of each frame.
        end = 0
        for seen in chunk:
            start, end = end, end + len(seen.hands.hands)
            arms = pose_arms(_bodies(clip, seen), meshes, range(start, end), hands.fingers)
            at = (slice(None), seen.people, seen.frame)
            found.fingers[at], found.confidence[at] = arms.fingers, arms.confidence
            found.arms[at] = np.stack([arms.pose[:, joints] for joints in _ARM])
            found.wrists[at] = arms.wrists
    return found


def _chunks(clip: Clip, source: FrameSource, hands: HandsOnBody) -> Iterator[list[_Seen]]:
    """Frames with hands, so many that CHUNK of them are solved together."""
    camera = PhotoCamera(float(clip.focal_length), tuple(clip.principal_point.tolist()))
    chunk: list[_Seen] = []
    for number, frame in zip(range(len(clip.times)), source.frames(), strict=False):
        people = np.flatnonzero(clip.state[:, number] == OBSERVED)
        if not len(people):
            continue
        detected = dataclasses.replace(
            Detections.empty(len(people)),
            boxes=clip.boxes[people, number],
            scores=np.ones(len(people), np.float32),
            keypoints=clip.keypoints2d[people, number],
        )
        prepared = hands.prepare(frame.pixels, detected, camera)
        if len(prepared.hands):
            chunk.append(_Seen(number, people, prepared))
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _joined(parts: Sequence[PreparedHands]) -> PreparedHands:
    """The hands of several frames of one size and camera."""
    names = [field.name for field in dataclasses.fields(Hands)]
    hands = Hands(**{n: np.concatenate([getattr(part.hands, n) for part in parts]) for n in names})
    inputs = joined([part.inputs for part in parts])
    return PreparedHands(hands, inputs, parts[0].photo, parts[0].size)


def _bodies(clip: Clip, seen: _Seen) -> _FrameBodies:
    """The steady bodies of a frame."""
    at = seen.people, seen.frame
    return _FrameBodies(
        clip.global_orient[at],
        clip.body_pose[at],
        clip.betas[seen.people],
        clip.joints[at],
        clip.focal_length,
        clip.principal_point,
    )


def _joints(clip: Clip, fingers: SmplModel) -> dict[str, np.ndarray]:
    """The fields of Clip that follow from the pose, for a body with fingers."""
    names = tuple(map(str, clip.keypoint_names))
    people, frames = np.nonzero(clip.state != ABSENT)
    pose = full_pose(clip.global_orient, clip.body_pose, clip.left_hand_pose, clip.right_hand_pose)
    fields = {
        name: getattr(clip, name).copy() for name in ("joints", "joints2d", "projected_keypoints")
    }
    for start in range(0, len(people), CHUNK):
        # The last chunk repeats a body: one program serves all.
        chosen = np.minimum(np.arange(start, start + CHUNK), len(people) - 1)
        at = people[chosen], frames[chosen]
        found = _pose_bodies(fingers, clip.betas[at[0]], pose[at], clip.translation[at], names)
        joints, points = (np.asarray(values) for values in found)
        knuckles = [joints[:, knuckle_rows(side)].mean(1, keepdims=True) for side in SIDES]
        joints = np.concatenate([joints[:, :BODY_JOINTS], *knuckles], 1)
        fields["joints"][at] = joints
        fields["joints2d"][at] = project(clip, joints)
        fields["projected_keypoints"][at] = project(clip, points)
    return fields


@jax.jit
def _posed_points(
    fingers: SmplModel, betas: Array, pose: Array, translation: Array
) -> smpl_jax.SmplOutput:
    return smpl_jax.forward(fingers, betas, pose, translation)


def _pose_bodies(
    fingers: SmplModel, betas: Array, pose: Array, translation: Array, names: tuple[str, ...]
) -> tuple[Float[Array, "B 52 3"], Float[Array, "B K 3"]]:
    """Joints, and the keypoints of these names, metres."""
    output = _posed_points(fingers, betas, pose.astype(np.float32), translation)
    return output.joints, keypoint_points(fingers, output, names)

"""The people of a photo or a clip as motions, for exports and the page."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import smpl_jax
from jaxtyping import Float, Int
from scipy.spatial.transform import Rotation
from smpl_jax.keypoints import SMPL24, SMPLH52

from genhmr_jax.geometry.fingers import BODY_JOINTS, SIDES, fingers_of_hand_joint, full_pose
from genhmr_jax.geometry.hand import HAND_JOINTS
from genhmr_jax.geometry.motion import ABSENT, OBSERVED, WORLD, Motion
from genhmr_jax.io.errors import InputError
from genhmr_jax.recover.clip import Clip
from genhmr_jax.recover.people import People
from genhmr_jax.render.rest import rest_joints


def motions_of_clip(clip: Clip, *, fingers: bool = False) -> list[Motion]:
    """The steady motions of the people, in the axes of the camera.

    Args:
      clip: the result.
      fingers: of the 52 joints of a body with fingers; the clip was recovered with --hands.
    """
    poses = np.concatenate([clip.global_orient, clip.body_pose], -1)
    motions = _of_clip(clip, poses, clip.translation, clip.state)
    if not fingers:
        return motions
    hands = clip.left_hand_pose, clip.right_hand_pose
    poses = full_pose(clip.global_orient, clip.body_pose, *hands)
    sure = [clip.joint_confidence[..., :BODY_JOINTS]]
    for confidence in (clip.left_hand_confidence, clip.right_hand_confidence):
        sure.append(np.repeat(confidence[..., None], len(HAND_JOINTS) - 1, -1))
    confidence = np.concatenate(sure, -1)
    shape = (len(clip.times), len(SMPLH52), 3)
    return [
        dataclasses.replace(motion, poses=poses[i].reshape(shape), confidence=confidence[i])
        for i, motion in enumerate(motions)
    ]


def frame_motions_of_clip(
    clip: Clip, body: smpl_jax.SmplModel, *, fingers: bool = False
) -> list[Motion]:
    """The answers of single frames, with the shapes of the clip, and their pelvises where they are.

    They have no filled frames, and fingers of the body's hands.
    """
    poses = np.concatenate([clip.frame_global_orient, clip.frame_body_pose], -1)
    seen = np.where(clip.state == OBSERVED, OBSERVED, ABSENT)
    motions = [
        dataclasses.replace(motion, translation=origin_of(joints[:, 0], motion.betas, body))
        for motion, joints in zip(
            _of_clip(clip, poses, clip.frame_translation, seen), clip.frame_joints, strict=True
        )
    ]
    if not fingers:
        return motions
    return [dataclasses.replace(motion, poses=_with_fingers(motion.poses)) for motion in motions]


def _with_fingers(poses: Float[np.ndarray, "F 24 3"]) -> Float[np.ndarray, "F 52 3"]:
    """Poses of SMPL for a body with fingers, which turn as the joint of the hand."""
    hands = [fingers_of_hand_joint(poses[:, SMPL24.index(f"{side}_hand")]) for side in SIDES]
    return np.concatenate([poses[:, :BODY_JOINTS], *hands], 1)


def origin_of(
    pelvis: Float[np.ndarray, "F 3"], betas: Float[np.ndarray, "10"], body: smpl_jax.SmplModel
) -> Float[np.ndarray, "F 3"]:
    """The translation of a body of a shape whose pelvis is known, metres.

    The origin of the model is not the pelvis, whose place in SMPL's rest pose depends on the shape.
    """
    return (pelvis - rest_joints(body, betas)[0]).astype(np.float32)


def motions_of_people(people: People) -> list[Motion]:
    """The people of a photo: motions of one frame."""
    fields = people.global_orient, people.body_pose, people.translation, people.joint_confidence
    return [_still(i, people.betas[i], *(field[i] for field in fields)) for i in range(len(people))]


def hypotheses_of_people(people: People) -> list[list[Motion]]:
    """The hypotheses of each person of a photo, in order; empty without any."""
    if people.hypothesis_betas is None:
        return [[] for _ in range(len(people))]
    return [
        [
            _still(i, *fields)
            for fields in zip(
                people.hypothesis_betas[i],
                people.hypothesis_global_orient[i],
                people.hypothesis_body_pose[i],
                people.hypothesis_translation[i],
                people.hypothesis_confidence[i],
                strict=True,
            )
        ]
        for i in range(len(people))
    ]


def in_world(motions: Sequence[Motion], clip: Clip, body: smpl_jax.SmplModel) -> list[Motion]:
    """Motions in world coordinates (y up, the ground at y = 0).

    The body turns about its pelvis p of the rest pose: x = R (v - p) + p + t. With the world's
    W x + w it becomes W R (v - p) + p + t', so that t' = W (p + t) + w - p.

    Raises:
      InputError: there is a cut, the camera moves, or too few feet rest on the ground.
    """
    if clip.world_rotation is None:
        remedy = "leave out --world: coordinates are those of the camera"
        raise InputError("--world", f"there is no world, because {clip.why_no_world}", remedy)
    turn = Rotation.from_matrix(clip.world_rotation)
    moved = []
    for motion in motions:
        pelvis = rest_joints(body, motion.betas)[0]
        poses = motion.poses.copy()
        poses[:, 0] = (turn * Rotation.from_rotvec(poses[:, 0])).as_rotvec()
        translation = turn.apply(pelvis + motion.translation) + clip.world_translation - pelvis
        translation = translation.astype(np.float32)
        change = {"poses": poses, "translation": translation, "axes": WORLD}
        moved.append(dataclasses.replace(motion, **change))
    return moved


def _of_clip(
    clip: Clip,
    poses: Float[np.ndarray, "P F 72"],
    translation: Float[np.ndarray, "P F 3"],
    state: Int[np.ndarray, "P F"],
) -> list[Motion]:
    poses = poses.reshape(*poses.shape[:2], 24, 3)
    return [
        Motion(
            name=f"person {number}",
            times=clip.times,
            betas=clip.betas[i],
            poses=poses[i],
            translation=translation[i],
            state=state[i],
            confidence=clip.joint_confidence[i],
        )
        for i, number in enumerate(clip.track_id)
    ]


def _still(
    person: int,
    betas: Float[np.ndarray, "10"],
    orient: Float[np.ndarray, "3"],
    pose: Float[np.ndarray, "69"],
    translation: Float[np.ndarray, "3"],
    confidence: Float[np.ndarray, "24"],
) -> Motion:
    poses = np.concatenate([orient, pose]).reshape(1, 24, 3)
    known = np.full(1, OBSERVED)
    name = f"person {person + 1}"
    return Motion(name, np.zeros(1), betas, poses, translation[None], known, confidence[None])

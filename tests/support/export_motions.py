"""Made-up motions and clips for the tests of exported files."""

import dataclasses

import jax
import numpy as np
import smpl_jax
from smpl_jax import SmplModel

from genhmr_jax.geometry.keypoints import DETECTED
from genhmr_jax.geometry.motion import ABSENT, CAMERA, FILLED, OBSERVED, Motion
from genhmr_jax.recover.clip import Clip

FORWARD = jax.jit(smpl_jax.forward)  # compiles faster than operation by operation


def motion(seed: int, frames: int = 12, axes: str = CAMERA, absent: tuple[int, ...] = ()) -> Motion:
    """A person whose joints all turn, at 25 frames a second from the second 2 on."""
    random = np.random.default_rng(seed)
    times = 2.0 + np.arange(frames) / 25
    size, phase = random.normal(0, 0.5, (24, 3)), random.uniform(0, 6, (24, 3))
    poses = size * np.sin(7 * times[:, None, None] + phase)
    poses[:, 0] += [np.pi if axes == CAMERA else 0.0, 0.3, 0.1]
    translation = np.stack([seed + 0.5 * np.sin(times), 0.2 * times, 4 + np.cos(times)], -1)
    present = ~np.isin(np.arange(frames), absent)
    for rows in (poses, translation):
        rows[~present] = 7.0  # absent rows have no meaning
    return Motion(
        name=f"person {seed}",
        times=times,
        betas=random.normal(size=10).astype(np.float32),
        poses=poses.astype(np.float32),
        translation=translation.astype(np.float32),
        state=np.where(present, OBSERVED, ABSENT),
        confidence=np.full((frames, 24), 0.9, np.float32),
        axes=axes,
    )


def first_frame(of: Motion) -> Motion:
    """The motion of the first frame alone, as of a photo."""
    rows = {name: getattr(of, name)[:1] for name in ("times", "poses", "translation", "state")}
    return dataclasses.replace(of, confidence=of.confidence[:1], **rows)


def posed(of: Motion, body: SmplModel) -> tuple[np.ndarray, np.ndarray]:
    """Joints (F, 24, 3) and vertices (F, V, 3) of a motion in its axes, metres."""
    output = FORWARD(body, of.betas, of.poses, of.translation)
    return np.asarray(output.joints), np.asarray(output.vertices)


def y_up(points: np.ndarray, axes: str) -> np.ndarray:
    """Points of camera or world axes with y up, by the signs of the coordinates."""
    return points * (np.array([1, -1, -1]) if axes == CAMERA else 1)


def clip(motions: list[Motion], body: SmplModel) -> Clip:
    """The clip of some motions, with made-up keypoints; person 0 is filled in frame 1."""
    people, frames = len(motions), len(motions[0])
    random = np.random.default_rng(0)
    state = np.stack([np.where(of.present, OBSERVED, ABSENT) for of in motions])
    state[0, 1] = FILLED
    known = (state > 0)[..., None, None]
    keypoints = random.uniform(50, 400, (people, frames, len(DETECTED), 3))
    keypoints[..., 2] = random.uniform(0.2, 1, keypoints.shape[:3])
    keypoints[:, :, 3, 2] = 0  # never seen
    poses = np.stack([of.poses for of in motions])
    turn = np.array([[1.0, 0, 0], [0, -1, 0], [0, 0, -1]])
    return Clip(
        frame_index=10 + np.arange(frames),
        times=motions[0].times,
        shot=np.zeros(len(motions[0].times)),
        image_size=(640, 480),
        focal_length=800.0,
        principal_point=(320, 240),
        body_model="lite",
        track_id=np.arange(1, people + 1),
        mask_label=np.zeros(people),
        state=state,
        boxes=np.tile([100.0, 50, 220, 350], (people, frames, 1)),
        keypoints2d=keypoints * known * (state != FILLED)[..., None, None],
        keypoint_names=DETECTED,
        betas=np.stack([of.betas for of in motions]),
        global_orient=poses[:, :, 0],
        body_pose=poses[:, :, 1:].reshape(people, frames, 69),
        translation=np.stack([of.translation for of in motions]),
        joints=np.stack([posed(of, body)[0] for of in motions]) * known,
        joints2d=np.zeros((people, frames, 24, 2)),
        joint_confidence=np.stack([of.confidence for of in motions]),
        joint_names=body.joint_names,
        projected_keypoints=keypoints[..., :2] + 1,
        camera_moves=False,
        world_rotation=turn,
        world_translation=np.array([0.0, 1.5, 0.0]),
    )

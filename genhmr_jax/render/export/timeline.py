"""A motion in the axes and at the frame rate of other formats."""

import dataclasses

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from genhmr_jax.geometry.motion import ABSENT, CAMERA, OBSERVED, WORLD, Motion, nearest_frames

_TO_Y_UP = {CAMERA: np.diag([1.0, -1.0, -1.0]), WORLD: np.eye(3)}
_Y_UP_TO = {"y": np.eye(3), "z": np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])}
_JITTER = 0.5  # of a frame: times that are closer than this to even ones count as even


def root_path(
    motion: Motion, pelvis: Float[np.ndarray, "3"], up: str = "y"
) -> tuple[Rotation, Float[np.ndarray, "F 3"]]:
    """The rotation and the position of the pelvis in the axes of a format.

    `global_orient` rotates about the pelvis at rest, which is not the model origin. The position of
    the pelvis is therefore translation + pelvis in any pose, and a turn of the axes applies to
    this sum, not to the translation.

    Args:
      motion: in camera or world axes.
      pelvis: the pelvis at rest, metres.
      up: "y": world axes stay, camera axes are turned by half a turn about x. "z": the same, then
        a quarter turn about x, (x, y, z) -> (x, -z, y).

    Returns:
      F rotations, and positions (F, 3), metres.
    """
    turn = _Y_UP_TO[up] @ _TO_Y_UP[motion.axes]
    rotations = Rotation.from_matrix(turn) * Rotation.from_rotvec(motion.poses[:, 0])
    return rotations, (motion.translation + pelvis) @ turn.T


def quaternion_track(
    motion: Motion, pelvis: Float[np.ndarray, "3"]
) -> tuple[Float[np.ndarray, "F J 4"], Float[np.ndarray, "F 3"]]:
    """The rotations of all joints, the root's in y-up axes, and the positions of the pelvis.

    Args:
      motion: in camera or world axes.
      pelvis: the pelvis at rest, metres.

    Returns:
      Quaternions (x, y, z, w), each with the sign that is nearer to the frame before; metres.
    """
    root, positions = root_path(motion, pelvis)
    others = (Rotation.from_rotvec(pose) for pose in motion.poses[:, 1:].swapaxes(0, 1))
    quaternions = np.stack([turn.as_quat() for turn in (root, *others)], 1)
    flips = np.einsum("fji,fji->fj", quaternions[1:], quaternions[:-1]) < 0
    signs = np.cumprod(np.where(flips, -1.0, 1.0), axis=0)
    quaternions[1:] *= signs[..., None]
    return quaternions, positions


def evenly(motion: Motion) -> tuple[Motion, float]:
    """The motion from its first to its last known frame at a fixed rate, and frames a second.

    If the times are even up to half a frame, as those of a video at 29.97 fps with times in whole
    milliseconds, the frames are kept. Otherwise they are interpolated at `motion.rate`.

    Raises:
      ValueError: no frame is known.
    """
    motion = motion.continuous()
    count = len(motion)
    if count < 2:
        return motion, motion.rate
    start, end = motion.times[0], motion.times[-1]
    rate = (count - 1) / (end - start)
    if np.abs((motion.times - start) * rate - np.arange(count)).max() < _JITTER:
        return motion, float(rate)
    rate = motion.rate
    even = start + np.arange(int((end - start) * rate + 1e-6) + 1) / rate
    return _at(motion, np.minimum(even, end)), rate


def _at(motion: Motion, times: Float[np.ndarray, "N"]) -> Motion:
    """The motion, all of whose frames have rows, at other times between its first and its last."""
    # `continuous` interpolates: the new times are rows of unknown frames among the known ones.
    order = np.argsort(np.concatenate([motion.times, times]), kind="stable")
    rows = lambda old: np.concatenate([old, np.repeat(old[:1], len(times), 0)])[order]
    known = np.repeat([True, False], [len(motion), len(times)])[order]
    nearest = nearest_frames(motion.times, times)
    merged = dataclasses.replace(
        motion,
        times=np.concatenate([motion.times, times])[order],
        poses=rows(motion.poses),
        translation=rows(motion.translation),
        confidence=rows(motion.confidence),
        state=np.where(known, OBSERVED, ABSENT),
    ).continuous()
    # A new time that equals the last known one is sorted after it, and cut off by `continuous`.
    new = np.searchsorted(merged.times, times)
    return dataclasses.replace(
        motion,
        times=times,
        poses=merged.poses[new],
        translation=merged.translation[new],
        state=motion.state[nearest],
        confidence=motion.confidence[nearest],
    )

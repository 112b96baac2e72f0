"""Tables of a clip: a CSV of 3D joints."""

import csv
import os
from pathlib import Path
from typing import Protocol

import numpy as np
from jaxtyping import Float

from genhmr_jax.geometry.motion import CAMERA
from genhmr_jax.io.atomic import atomic_path

STATES = ("absent", "observed", "filled")
"""Words for the numbers of `ClipArrays.state`."""


class ClipArrays(Protocol):
    """The arrays of a clip that tables hold; `recover.clip.Clip` describes each of them."""

    frame_index: np.ndarray
    times: np.ndarray
    image_size: np.ndarray
    track_id: np.ndarray
    state: np.ndarray
    boxes: np.ndarray
    keypoints2d: np.ndarray
    keypoint_names: np.ndarray
    projected_keypoints: np.ndarray
    joints: np.ndarray
    joint_confidence: np.ndarray
    joint_names: np.ndarray
    world_rotation: np.ndarray | None
    world_translation: np.ndarray | None


def joints_in(clip: ClipArrays, axes: str) -> Float[np.ndarray, "P F 24 3"]:
    """The joints of a clip in CAMERA or WORLD axes, metres, float64.

    Raises:
      ValueError: WORLD, and the clip has no world.
    """
    joints = clip.joints.astype(np.float64)
    if axes == CAMERA:
        return joints
    if clip.world_rotation is None or clip.world_translation is None:
        raise ValueError("the clip has no world coordinates")
    return joints @ clip.world_rotation.T.astype(np.float64) + clip.world_translation


def save_csv(path: str | os.PathLike, clip: ClipArrays, axes: str = CAMERA) -> None:
    """Write a row for each frame and person, in the order of frames, then of tracks.

    A person has no row in a frame from which it is absent. Columns: frame (`frame_index`), time
    (seconds), person (`track_id`), state (observed or filled), axes (camera or world); then for
    each joint NAME_x, NAME_y, NAME_z (metres) and NAME_confidence (0..1; empty if unknown).

    Args:
      path: of the file.
      clip: the arrays of the clip, in camera axes.
      axes: CAMERA or WORLD, of the written joints.

    Raises:
      ValueError: WORLD, and the clip has no world.
      InputError: the file cannot be written.
    """
    joints = joints_in(clip, axes)
    columns = ["frame", "time", "person", "state", "axes"] + [
        f"{name}_{part}" for name in clip.joint_names for part in ("x", "y", "z", "confidence")
    ]
    with (
        atomic_path(path) as temporary,
        Path(temporary).open("w", encoding="utf-8", newline="") as file,
    ):
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(columns)
        for frame, person in np.argwhere(clip.state.T > 0):
            values = np.concatenate(
                [joints[person, frame], clip.joint_confidence[person, frame, :, None]], -1
            )
            numbers = ("" if np.isnan(value) else f"{value:.5f}" for value in values.ravel())
            head = [clip.frame_index[frame], f"{clip.times[frame]:.6f}", clip.track_id[person]]
            rows.writerow([*head, STATES[clip.state[person, frame]], axes, *numbers])

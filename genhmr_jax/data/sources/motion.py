"""Shared by the sources of motion clips: which frames are kept, the up axis, and records."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from genhmr_jax.data.sources.records import PoseRecord, check_turns, pose_record
from genhmr_jax.data.sources.source import Report
from genhmr_jax.io.errors import InputError

# SMPL-H and SMPL share the root and joints 1..21; SMPL's two hand joints are not in SMPL-H.
BODY_JOINTS = 21


def kept_frames(count: int, trim: float, every: int) -> np.ndarray:
    """The frames of a clip that are kept, at least one.

    `trim` (0..1) of the clip is cut at each end, and every `every`-th frame of the rest is kept:
    clips begin and end in calibration poses, and successive frames are nearly equal. This is the
    rule of TokenHMR (Dwivedi et al., CVPR 2024), except that it keeps nothing of clips of one to
    three frames; here they keep their middle.
    """
    frames = np.arange(int(trim * count), int((1 - trim) * count), every)
    return frames if len(frames) else np.array([count // 2])


def z_up_to_y_up(root: np.ndarray) -> np.ndarray:
    """Root orientations (N, 3) axis-angle of a z-up world -> the same bodies in a y-up world.

    Rows that are not finite become NaN, which the check of the record rejects.
    """
    turned = np.full(root.shape, np.nan)
    good = (np.abs(root) < 1e6).all(1)
    to_y_up = Rotation.from_euler("x", -90, degrees=True)
    turned[good] = (to_y_up * Rotation.from_rotvec(root[good])).as_rotvec()
    return turned


def smpl_pose(root: np.ndarray, body: np.ndarray) -> np.ndarray:
    """Root (N, 3) and joints 1..21 (N, 63) axis-angle -> SMPL's pose (N, 72), with zero hands."""
    return np.concatenate([root, body, np.zeros((len(root), 72 - 3 - 3 * BODY_JOINTS))], 1)


def clip_records(
    where: object,
    report: Report,
    poses: np.ndarray,
    frames: np.ndarray,
    *,
    sequence: str,
    betas: Any = None,
    gender: Any = "neutral",
) -> Iterator[PoseRecord]:
    """A record for each pose of a clip.

    Args:
      where: the file, for errors.
      report: of bad frames.
      poses: (n, 72).
      frames: (n,) their numbers in the file.
      sequence, betas, gender: of the clip, see `pose_record`.

    Raises:
      InputError: the whole clip is in wrong units, or a frame is bad and `report` does not skip.
    """
    finite = np.isfinite(poses).all(1)
    if finite.any():
        check_turns(poses[finite], where)
    for pose, frame in zip(poses, frames, strict=True):
        with report.skipping():
            record = pose_record(
                f"{where}: frame {frame}",
                pose=pose,
                sequence=sequence,
                frame=int(frame),
                betas=betas,
                gender=gender,
            )
            yield record


def check_not_empty(count: int, where: object) -> None:
    """Raises InputError if a clip has no frames."""
    if not count:
        remedy = "download it again, or leave it out with --skip-bad"
        raise InputError(where, "is an empty sequence (0 frames)", remedy)

"""Continuous motions of a pose corpus, for rendered clips.

A corpus leaves out poses that hardly differ from the one before, and has no positions. The motion
between its poses is interpolated here, and the position follows from the feet on the ground.
"""

import dataclasses
import pathlib

import numpy as np
from jaxtyping import Float
from scipy.interpolate import PchipInterpolator
from scipy.ndimage import gaussian_filter1d
from scipy.spatial.transform import Rotation

from genhmr_jax.data.synthetic.rendered import SPLITS
from genhmr_jax.io.errors import InputError
from genhmr_jax.io.npz_files import read_own_npz

# Between two poses of the corpus; more of either ends a motion. CMU's joints turn by about 36
# degrees in a sixtieth of a second where the recording has an error.
GAP = 0.5  # s
TURN = np.radians(50)  # of any joint
SPEED = np.radians(1800)  # of any joint, a second
STEADY = 1 / 30  # s, of the Gaussian over rotations and positions
LAYER = 0.02  # m above the lowest point, within which points carry the body
_BETWEEN = 4  # times in an interval of frames, at which motions are interpolated


@dataclasses.dataclass(frozen=True)
class Sequence:
    """A continuous part of a motion clip of a corpus.

    Attributes:
      name: of the motion clip.
      subject: who moves; the name, if the corpus does not tell.
      poses: (N, 24, 3) axis-angle radians, y up.
      times: (N,) seconds from 0, at irregular intervals below GAP.
    """

    name: str
    subject: str
    poses: Float[np.ndarray, "N 24 3"]
    times: Float[np.ndarray, "N"]

    @property
    def seconds(self) -> float:
        """The duration."""
        return float(self.times[-1])

    def sampled(self, start: float, count: int, rate: float) -> Float[np.ndarray, "F 24 3"]:
        """Poses (axis-angle) of `count` frames at `rate` a second, from `start` seconds.

        The quaternions of each joint are interpolated with monotone cubics (Fritsch and Carlson
        1980), which do not overshoot in the long intervals of a person at rest. A Gaussian of
        STEADY then makes the acceleration continuous.

        Raises:
          ValueError: the frames are not within the sequence.
        """
        end = start + (count - 1) / rate
        if start < 0 or end > self.seconds:
            raise ValueError(f"{start:g} to {end:g} s is not within {self.seconds:g} s")
        # 1. Neighbouring quaternions; a rotation has two of them.
        quaternions = Rotation.from_rotvec(self.poses.reshape(-1, 3)).as_quat()
        quaternions = quaternions.reshape(len(self.poses), 24, 4)
        opposite = np.einsum("njk,njk->nj", quaternions[1:], quaternions[:-1]) < 0
        quaternions[1:] *= np.where(np.cumsum(opposite, 0) % 2, -1.0, 1.0)[..., None]
        # 2. The frames and those beside and between them, which the Gaussian needs.
        beside = int(np.ceil(4 * STEADY * rate)) * _BETWEEN
        fine = (np.arange(-beside, (count - 1) * _BETWEEN + beside + 1)) / (_BETWEEN * rate)
        times = np.clip(start + fine, 0, self.seconds)
        dense = PchipInterpolator(self.times, quaternions)(times)
        smooth = gaussian_filter1d(dense, STEADY * _BETWEEN * rate, axis=0, mode="nearest")
        smooth = smooth[beside : len(fine) - beside : _BETWEEN]
        return Rotation.from_quat(smooth.reshape(-1, 4)).as_rotvec().reshape(count, 24, 3)


def load_sequences(path: str | pathlib.Path, split: str, seconds: float) -> list[Sequence]:
    """The continuous motions of a split that are at least so long, in the order of the file.

    A recording that the corpus has under two names is taken once.

    Args:
      path: a pose corpus (docs/training.md), with ``frame`` (N,), the number of each pose in its
        motion clip, and ``mocap_framerate``, frames a second.
      split: "train" or "val".
      seconds: the least duration.

    Raises:
      InputError: no such file, a missing key, poses that are not (N, 72), or no motion is so long.
    """
    path = pathlib.Path(path)
    needed = ("poses", "split", "seq_id", "frame", "mocap_framerate")
    remedy = "give the npz of docs/training.md, with frame numbers"
    data = read_own_npz(path, "pose corpus", remedy, needed, ("seq_name", "seq_subject"))
    names = data.get("seq_name")
    subjects = data.get("seq_subject", names)
    poses, of_split, clips, frames, rate = (data[key] for key in needed)
    if poses.ndim != 2 or poses.shape[1] != 72:
        raise InputError(path, f"poses have shape {poses.shape}", "poses are (N, 72) axis-angle")
    kept = np.flatnonzero(of_split == SPLITS.index(split))
    poses = poses[kept].astype(np.float64).reshape(-1, 24, 3)
    clips, times = clips[kept], frames[kept] / float(rate)

    joints = Rotation.from_rotvec(poses.reshape(-1, 3))
    rows = np.arange(len(joints)).reshape(-1, 24)
    turns = (joints[rows[:-1].ravel()].inv() * joints[rows[1:].ravel()]).magnitude()
    intervals = np.diff(times)
    ends = (np.diff(clips) != 0) | (intervals <= 0) | (intervals > GAP)
    fastest = turns.reshape(-1, 24).max(1)
    ends |= (fastest > TURN) | (fastest > SPEED * intervals)
    sequences = []
    for part in np.split(np.arange(len(poses)), np.flatnonzero(ends) + 1):
        if len(part) > 2 and times[part[-1]] - times[part[0]] >= seconds:
            clip = clips[part[0]]
            name, subject = (str(clip if of is None else of[clip]) for of in (names, subjects))
            found = Sequence(name, subject, poses[part], times[part] - times[part[0]])
            if not any(_same(found, other) for other in sequences):
                sequences.append(found)
    if not sequences:
        problem = f"has no continuous motion of {seconds:g} s of the split {split!r}"
        raise InputError(path, problem, "give a corpus of motion clips")
    return sequences


def _same(one: Sequence, other: Sequence) -> bool:
    """Whether two motions are of one recording: CMU has some under two names."""
    if one.times.shape != other.times.shape or not np.allclose(one.times, other.times):
        return False
    return np.allclose(one.poses, other.poses, atol=0.01)


def walked(points: Float[np.ndarray, "T K 3"], interval: float) -> Float[np.ndarray, "T 3"]:
    """Positions that keep the lowest points of a moving body on the ground, where they are.

    The points within about LAYER of the lowest one carry the body: their mean does not move
    horizontally, and they are at y = 0. A body never leaves the ground; jumps become crouching.

    Args:
      points: of the body without a position, y up, metres: joints, heels and toes.
      interval: seconds between two rows.

    Returns:
      metres, to be added to the points. The first row is at x = z = 0.
    """
    height = points[..., 1]
    lowest = height.min(1, keepdims=True)
    weight = np.exp(-(height - lowest) / LAYER)
    weight /= weight.sum(1, keepdims=True)
    between = (weight[1:] + weight[:-1]) / 2
    step = -np.einsum("tk,tki->ti", between, np.diff(points, axis=0))
    path = np.concatenate([np.zeros((1, 3)), np.cumsum(step, 0)])
    path[:, 1] = -(weight * height).sum(1)
    path = gaussian_filter1d(path, STEADY / interval, axis=0, mode="nearest")
    return path - path[:1] * [1, 0, 1]

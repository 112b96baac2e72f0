"""Errors of a person in a clip over time, against known motion.

The errors are of the frames in which the person was found; how many these are is a figure of its
own.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from genhmr_jax.evaluate.clip_split import KnownClip
from genhmr_jax.evaluate.measuring import back_to_front, joint_errors
from genhmr_jax.evaluate.predictions import nearest_person
from genhmr_jax.geometry import metrics
from genhmr_jax.geometry.motion import ABSENT, OBSERVED
from genhmr_jax.recover.clip import Clip

SHORT = 10  # frames; a shorter time back to front is a flip
MATCHED = 5  # frames with the keypoints of the person, from which on a track is of the person


@dataclasses.dataclass(frozen=True)
class Answer:
    """What was recovered of a person in F frames, in camera coordinates.

    Attributes:
      joints: (F, 24, 3) metres.
      roots: (F, 3) global_orient, axis-angle.
      known: (F,) whether the person was found. The other rows have no meaning.
      focal: px, of `joints`.
      centre: (2,) principal point, px.
    """

    joints: Float[np.ndarray, "F 24 3"]
    roots: Float[np.ndarray, "F 3"]
    known: Bool[np.ndarray, "F"]
    focal: float
    centre: Float[np.ndarray, "2"]

    def only(self, known: Bool[np.ndarray, "F"]) -> "Answer":
        """The same in fewer frames."""
        return dataclasses.replace(self, known=self.known & known)


def of_frames(clip: Clip, person: int) -> Answer:
    """A person in each frame by itself. `clip` has the frame_* fields."""
    known = clip.state[person] == OBSERVED
    roots = clip.frame_global_orient[person]
    return _answer(clip, clip.frame_joints[person], roots, known)


def of_track(clip: Clip, person: int) -> Answer:
    """A person over time, with the frames that were filled."""
    known = clip.state[person] != ABSENT
    return _answer(clip, clip.joints[person], clip.global_orient[person], known)


def _answer(clip: Clip, joints: np.ndarray, roots: np.ndarray, known: np.ndarray) -> Answer:
    centre = np.asarray(clip.principal_point, np.float64)
    return Answer(joints, roots, known, float(clip.focal_length), centre)


def matched_frames(clip: Clip, truth: KnownClip) -> Int[np.ndarray, "P"]:
    """The number of frames in which each track has the keypoints of the person.

    In a frame at most one track has them: the nearest one (predictions.nearest_person).
    """
    count = np.zeros(len(clip), int)
    for frame, keypoints in enumerate(truth.keypoints):
        tracks = np.flatnonzero(clip.state[:, frame] == OBSERVED)
        nearest = nearest_person(clip.keypoints2d[tracks, frame], keypoints)
        if nearest is not None:
            count[tracks[nearest]] += 1
    return count


def sums(answer: Answer, truth: KnownClip) -> dict[str, tuple[float, int]]:
    """Sums over the frames of a clip, and numbers of summands; `means` divides them.

    * mpjpe_mm, pa_mpjpe_mm: mean over the joints, relative to the pelvis, and after one similarity
      transform a frame.
    * accel_error: length of the second difference of the joints' errors relative to the pelvis,
      m/s^2 (HMMR, Kanazawa et al. 2019, who give mm per frame^2; VIBE, Kocabas et al. 2020). It
      needs three frames in succession, as the next four do.
    * accel, true_accel: length of the second difference of the recovered and of the true joints
      relative to the pelvis, m/s^2. Jitter is the excess of the first.
    * pelvis_accel_error: as accel_error, of the pelvis in the camera.
    * position_m: distance of the pelvis from the true one in the camera. The depth follows the
      focal length.
    * joints_px: distance of the projected joints from the projected true joints.
    * back_to_front: frames, and flips: runs of less than SHORT of these frames.
    * found: frames with the person.
    """
    known, rate = answer.known, truth.rate
    # 1. Single frames.
    joints, target = answer.joints[known], np.asarray(truth.joints)[known]
    count = int(known.sum())
    found: dict[str, tuple[float, int]] = {"found": (float(count), len(known))}
    if not count:
        return found
    errors = {name: value.mean(-1).sum() for name, value in joint_errors(joints, target).items()}
    middle = _middle(truth)
    pixels = _projected(joints, answer.focal, answer.centre)
    pixels = np.linalg.norm(pixels - _projected(target, truth.focal, middle), axis=-1)
    turned = np.zeros(len(known), bool)
    turned[known] = back_to_front(answer.roots[known], truth.global_orient[known])
    position = np.linalg.norm(joints[:, 0] - target[:, 0], axis=-1)
    found |= {
        "mpjpe_mm": (errors["mpjpe"], count),
        "pa_mpjpe_mm": (errors["pa_mpjpe"], count),
        "position_m": (position.sum(), count),
        "joints_px": (pixels.mean(-1).sum(), count),
        "back_to_front": (float(turned.sum()), count),
        "flips": (float(flips(turned, known)), 1),
    }
    # 2. Three frames in succession.
    every, true = answer.joints.astype(np.float64), np.asarray(truth.joints, np.float64)
    rooted, true_rooted = every - every[:, :1], true - true[:, :1]
    still = np.zeros_like(true)
    pairs = {
        "accel_error": (rooted, true_rooted),
        "accel": (rooted, still),
        "true_accel": (true_rooted, still),
        "pelvis_accel_error": (every[:, :1], true[:, :1]),
    }
    for name, (one, other) in pairs.items():
        values, inner = metrics.acceleration_error(one, other, known)
        values = np.asarray(values, np.float64)[np.asarray(inner)] * rate**2
        found[name] = (values.sum(), len(values))
    return {name: (float(total), int(number)) for name, (total, number) in found.items()}


def means(parts: Sequence[dict[str, tuple[float, int]]]) -> dict[str, float | None]:
    """The figures of `sums` of several clips: means over all their frames.

    "flips" is their number; a figure without a frame is None.
    """
    names = dict.fromkeys(name for part in parts for name in part)
    totals = {
        name: [sum(part.get(name, (0.0, 0))[i] for part in parts) for i in range(2)]
        for name in names
    }
    result: dict[str, Any] = {
        name: total / number if number else None for name, (total, number) in totals.items()
    }
    if "flips" in totals:
        result["flips"] = int(totals["flips"][0])
    return result


def flips(turned: Bool[np.ndarray, "F"], known: Bool[np.ndarray, "F"]) -> int:
    """The number of runs of less than SHORT frames in which a body is back to front.

    Frames in which the body is not known neither end a run nor count. A run at the start or the end
    of the clip counts too, but not one over the whole clip.
    """
    of_known = turned[known].astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], of_known, [0]])))
    lengths = edges[1::2] - edges[::2]
    return int(((lengths < SHORT) & (lengths < len(of_known))).sum())


def _projected(points: np.ndarray, focal: float, centre: np.ndarray) -> np.ndarray:
    return points[..., :2] / points[..., 2:] * focal + centre


def _middle(truth: KnownClip) -> np.ndarray:
    return np.array(truth.size) / 2

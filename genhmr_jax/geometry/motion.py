"""The motion of one person: the parameters of a body over time."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial.transform import Rotation, Slerp

CAMERA, WORLD = "camera", "world"
"""Axes of a motion. camera: x right, y down, z forward. world: y up, the ground at y = 0."""
ABSENT, OBSERVED, FILLED = 0, 1, 2
"""States of a person in a frame. FILLED: not detected, and interpolated over a short gap."""


def frame_interval(times: Float[np.ndarray, "F"]) -> float:
    """The usual time from a frame to the next one, seconds: the median; 0 for a single frame.

    Args:
      times: seconds, increasing.
    """
    return float(np.median(np.diff(times))) if len(times) > 1 else 0.0


@dataclasses.dataclass(frozen=True)
class Motion:
    """One body over F frames; a photo has one frame. NumPy.

    Attributes:
      name: of the person, such as "person 1".
      times: (F,) seconds, increasing; the intervals may differ.
      betas: (10,) shape, the same in all frames.
      poses: (F, J, 3) axis-angle, radians; joint 0 is global_orient, in `axes`. J is 24, or 52 for
        a body with fingers (geometry/fingers.py).
      translation: (F, 3) metres of the model origin (which is not the pelvis), in `axes`.
      state: (F,) ABSENT, OBSERVED or FILLED. The rows of ABSENT frames have no meaning.
      confidence: (F, J) 0..1 of each joint; NaN without an estimate.
      axes: CAMERA or WORLD.
    """

    name: str
    times: Float[np.ndarray, "F"]
    betas: Float[np.ndarray, "10"]
    poses: Float[np.ndarray, "F J 3"]
    translation: Float[np.ndarray, "F 3"]
    state: Int[np.ndarray, "F"]
    confidence: Float[np.ndarray, "F J"]
    axes: str = CAMERA

    def __len__(self) -> int:
        return len(self.times)

    @property
    def present(self) -> Bool[np.ndarray, "F"]:
        """Whether the body is known in a frame."""
        return self.state != ABSENT

    @property
    def rate(self) -> float:
        """Frames a second, from the median interval; 30 for a single frame."""
        return 1 / frame_interval(self.times) if len(self) > 1 else 30.0

    def continuous(self) -> "Motion":
        """From the first to the last known frame, with interpolated rows where it is not known.

        Rotations are interpolated on the shortest arc, translations linearly. `state` still
        tells which rows were known.

        Raises:
          ValueError: no frame is known.
        """
        known = np.flatnonzero(self.present)
        if not len(known):
            raise ValueError(f"{self.name} is in no frame")
        span = slice(known[0], known[-1] + 1)
        times, at = self.times[span], self.times[known]
        poses = self.poses[known].astype(np.float64)
        if len(known) > 1:
            curves = (Slerp(at, Rotation.from_rotvec(joint)) for joint in poses.swapaxes(0, 1))
            poses = np.stack([curve(times).as_rotvec() for curve in curves], 1)
        lines = [np.interp(times, at, column) for column in self.translation[known].T]
        return dataclasses.replace(
            self,
            times=times,
            poses=poses.astype(np.float32),
            translation=np.stack(lines, -1).astype(np.float32),
            state=self.state[span],
            confidence=self.confidence[span],
        )


def nearest_frames(
    times: Float[np.ndarray, "F"], at: Float[np.ndarray, "N"]
) -> Int[np.ndarray, "N"]:
    """The frame of increasing `times` that is nearest to each time of `at`, the earlier of two."""
    after = np.searchsorted(times, at).clip(1, max(len(times) - 1, 1))
    if len(times) == 1:
        return after - 1
    return after - (at - times[after - 1] <= times[after] - at)

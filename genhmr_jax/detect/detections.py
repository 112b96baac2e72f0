"""The detected people of a photo, or those that the user gives. NumPy on the host."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int

from genhmr_jax.geometry.keypoints import DETECTED, MIN_CONFIDENCE, MIN_KEYPOINTS

MASK_SIZE = 128
"""Number of cells on each side of a mask."""
GRID, CHANNELS = 8, 288
"""Cells on each side of BlazePose's inner map, and its channels (blazepose.INNER)."""


@dataclasses.dataclass(frozen=True)
class Detections:
    """P people of a photo. A row of zeros means that a quantity is not known for a person.

    Attributes:
      boxes: (P, 4) xyxy px.
      scores: (P,) 0..1, of the detector.
      keypoints: (P, 23, 3) x px, y px and confidence 0..1, in the order of DETECTED. A detected
        keypoint outside the image has confidence 0.
      keypoints3d: (P, 23, 3) the same keypoints in metres from mid-hip, as the lifter estimates
        them: x right, y down, z away from the camera.
      masks: (P, M, M) probability that a cell belongs to the person.
      mask_frames: (P, 2, 3) location of a mask: px = frame[:, :2] @ (u, v) + frame[:, 2], with u to
        the right and v down, 0..1 in the mask.
      features: (P, 2, 8, 8, 288) BlazePose's inner map of the person's region and of its mirror
        image, each in the axes of its own region.
      regions: (P, 4) those regions: x, y, side in px and angle in radians (blazepose.Region).
      certainty: (P,) of `pose_estimate.certainty`; 1 where the user gives the keypoints.
      given: (P,) index of the person among the user's boxes or keypoints; -1: the detector found
        the person.
      left_out: number of people who were found or given beyond `max_people`.
    """

    boxes: Float[np.ndarray, "P 4"]
    scores: Float[np.ndarray, "P"]
    keypoints: Float[np.ndarray, "P 23 3"]
    keypoints3d: Float[np.ndarray, "P 23 3"]
    masks: Float[np.ndarray, "P M M"]
    mask_frames: Float[np.ndarray, "P 2 3"]
    features: Float[np.ndarray, "P 2 8 8 288"]
    regions: Float[np.ndarray, "P 4"]
    certainty: Float[np.ndarray, "P"]
    given: Int[np.ndarray, "P"]
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def has_features(self) -> Bool[np.ndarray, "P"]:
        """Whether `features` are known for each person."""
        return self.features.any((1, 2, 3, 4))

    def only(self, chosen: np.ndarray | slice | list[int]) -> "Detections":
        """The chosen people: indices or (P,) booleans."""
        return dataclasses.replace(self, **{name: rows[chosen] for name, rows in self._rows()})

    def padded(self, rows: int) -> "Detections":
        """The people followed by empty rows, `rows` in all."""
        empty = dict(Detections.empty(rows - len(self))._rows())
        joined = {name: np.concatenate([own, empty[name]]) for name, own in self._rows()}
        return dataclasses.replace(self, **joined)

    def moved(self, x: float, y: float) -> "Detections":
        """The same people in an image whose origin is (x, y) px further left and up."""
        offset = np.float32([x, y])
        frames = self.mask_frames.copy()
        frames[:, :, 2] += offset
        return dataclasses.replace(
            self,
            boxes=self.boxes + np.tile(offset, 2),
            keypoints=self.keypoints + np.append(offset, np.float32(0)),
            mask_frames=frames,
            regions=self.regions + np.float32([x, y, 0, 0]),
        )

    @staticmethod
    def empty(people: int) -> "Detections":
        """Rows of people for whom nothing is known."""
        zeros = lambda *shape: np.zeros((people, *shape), np.float32)
        return Detections(
            boxes=zeros(4),
            scores=zeros(),
            keypoints=zeros(len(DETECTED), 3),
            keypoints3d=zeros(len(DETECTED), 3),
            masks=zeros(MASK_SIZE, MASK_SIZE),
            mask_frames=np.tile(np.eye(2, 3, dtype=np.float32), (people, 1, 1)),
            features=zeros(2, GRID, GRID, CHANNELS),
            regions=np.tile(np.float32([0, 0, 1, 0]), (people, 1)),
            certainty=np.ones(people, np.float32),
            given=np.full(people, -1),
        )

    def _rows(self) -> list[tuple[str, np.ndarray]]:
        """Every array with one row for each person."""
        names = (field.name for field in dataclasses.fields(self) if field.name != "left_out")
        return [(name, getattr(self, name)) for name in names]


def enough_keypoints(keypoints: Float[np.ndarray, "P K 3"]) -> Bool[np.ndarray, "P"]:
    """Whether enough keypoints of each person are known to recover a body."""
    return (keypoints[..., 2] >= MIN_CONFIDENCE).sum(-1) >= MIN_KEYPOINTS

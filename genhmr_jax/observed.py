"""What is seen of the people of a photo before any body is made of it: boxes and keypoints, the user's own or the detector's."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from genhmr_jax.body.keypoints import DETECTED, MIN_CONFIDENCE, MIN_KEYPOINTS
from genhmr_jax.looks import Looks
from genhmr_jax.masks import Masks


@dataclasses.dataclass(frozen=True)
class Observed:
    """P people of a photo.

    boxes: (P, 4) xyxy px. keypoints: (P, 23, 3) px and confidence. keypoints3d: (P, 23, 3) metres from mid-hip, all zero where they are
    not known; see detect.Detections. masks, looks: of the people, empty where they are not known.
    """

    boxes: Float[np.ndarray, "P 4"]
    keypoints: Float[np.ndarray, "P K 3"]
    keypoints3d: Float[np.ndarray, "P K 3"]
    masks: Masks
    looks: Looks

    def __len__(self) -> int:
        return len(self.boxes)

    def only(self, chosen: np.ndarray) -> "Observed":
        """The chosen of them: indices or (P,) booleans."""
        return Observed(self.boxes[chosen], self.keypoints[chosen], self.keypoints3d[chosen], self.masks[chosen], self.looks[chosen])

    def moved(self, x: float, y: float) -> "Observed":
        """The same in an image whose origin lies (x, y) px further up and left."""
        boxes, keypoints = self.boxes + np.float32([x, y, x, y]), self.keypoints + np.float32([x, y, 0])
        offset = np.array([x, y])
        return Observed(boxes, keypoints, self.keypoints3d, self.masks.moved(offset), self.looks.moved(offset))

    @staticmethod
    def nobody() -> "Observed":
        """One empty row."""
        return Observed(np.zeros((1, 4), np.float32), *np.zeros((2, 1, len(DETECTED), 3), np.float32), Masks.none(1), Looks.none(1))


def observe(image: np.ndarray, boxes: np.ndarray | None, keypoints: np.ndarray | None, *, max_people: int, lift: bool) -> Observed:
    """Looks at a photo.

    Args:
      image: uint8 (H, W, 3), RGB.
      boxes: (P, 4) xyxy px of the user's own, or None to search for people.
      keypoints: (P, 23, 3) px and confidence of the user's own, or None to detect them.
      max_people: the most that are searched for.
      lift: whether the user's own keypoints, which have none in 3D, no masks and no looks, get them from the detector's own look at the
        picture.

    Raises:
      ValueError: keypoints of another shape or not finite, an image or boxes that the detector refuses.
    """
    from genhmr_jax import detect

    if keypoints is None:
        if boxes is not None:
            found = detect.keypoints_in_boxes(image, np.asarray(boxes, np.float32))
        else:
            found = detect.detect(image, max_people=max_people)
        return Observed(found.boxes, found.keypoints, found.keypoints3d, found.masks, found.looks)
    keypoints = np.asarray(keypoints, np.float32)
    if keypoints.ndim != 3 or keypoints.shape[1:] != (len(DETECTED), 3) or not np.isfinite(keypoints).all():
        raise ValueError(f"keypoints have shape {keypoints.shape} or are not finite: (P, {len(DETECTED)}, 3) finite numbers are needed")
    if boxes is None:
        points = np.where(keypoints[..., 2:] > 0, keypoints[..., :2], np.nan)
        empty = np.isnan(points).all((1, 2))
        points[empty] = 0.0
        boxes = np.concatenate([np.nanmin(points, 1), np.nanmax(points, 1)], -1)
    boxes, keypoints3d = np.asarray(boxes, np.float32), np.zeros_like(keypoints)
    masks, looks = Masks.none(len(keypoints)), Looks.none(len(keypoints))
    if lift and (usable := can_recover(keypoints) & _inside(boxes, image)).any():
        found = detect.keypoints_in_boxes(image, boxes[usable])
        keypoints3d[usable], masks.values[usable], masks.frames[usable] = found.keypoints3d, found.masks.values, found.masks.frames
        looks.inner[usable], looks.regions[usable] = found.looks.inner, found.looks.regions
    return Observed(boxes, keypoints, keypoints3d, masks, looks)


def can_recover(keypoints: Float[np.ndarray, "P K 3"]) -> Bool[np.ndarray, "P"]:
    """Whether enough of each person's keypoints is seen."""
    return (keypoints[..., 2] >= MIN_CONFIDENCE).sum(-1) >= MIN_KEYPOINTS


def _inside(boxes: Float[np.ndarray, "P 4"], image: np.ndarray) -> Bool[np.ndarray, "P"]:
    """Whether boxes have some area inside the image."""
    inside = np.clip(boxes, 0, np.tile(image.shape[1::-1], 2))
    return (inside[:, 2:] - inside[:, :2] >= 1).all(-1)

"""What is seen of the people of a photo before any body is made of it: boxes and keypoints, the user's own or the detector's."""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int

from genhmr_jax.detect.blazepose_features import Looks
from genhmr_jax.detect.masks import Masks
from genhmr_jax.geometry.keypoints import DETECTED, MIN_CONFIDENCE, MIN_KEYPOINTS, keypoint_bounds

FOUND_PEOPLE = 10
"""The most people that the detector returns unless somebody asks for more."""


@dataclasses.dataclass(frozen=True)
class Observed:
    """P people of a photo.

    boxes: (P, 4) xyxy px. keypoints: (P, 23, 3) px and confidence. keypoints3d: (P, 23, 3) metres from mid-hip, all zero where they are
    not known; see detect.Detections. masks, looks: of the people, empty where they are not known.
    given: (P,) which of the user's boxes or keypoints a person is, -1 for people whom the detector found. left_out: how many people more
    were found than were asked for.
    """

    boxes: Float[np.ndarray, "P 4"]
    keypoints: Float[np.ndarray, "P K 3"]
    keypoints3d: Float[np.ndarray, "P K 3"]
    masks: Masks
    looks: Looks
    given: Int[np.ndarray, "P"] | None = None
    left_out: int = 0

    def __post_init__(self) -> None:
        if self.given is None:
            object.__setattr__(self, "given", np.full(len(self.boxes), -1))

    def __len__(self) -> int:
        return len(self.boxes)

    def only(self, chosen: np.ndarray) -> "Observed":
        """The chosen of them: indices or (P,) booleans."""
        rows = (self.boxes, self.keypoints, self.keypoints3d, self.masks, self.looks, self.given)
        return Observed(*(of_all[chosen] for of_all in rows), self.left_out)

    def moved(self, x: float, y: float) -> "Observed":
        """The same in an image whose origin lies (x, y) px further up and left."""
        boxes, keypoints = self.boxes + np.float32([x, y, x, y]), self.keypoints + np.float32([x, y, 0])
        offset = np.array([x, y])
        moved = {"boxes": boxes, "keypoints": keypoints, "masks": self.masks.moved(offset), "looks": self.looks.moved(offset)}
        return dataclasses.replace(self, **moved)

    @staticmethod
    def nobody() -> "Observed":
        """One empty row."""
        points = np.zeros((2, 1, len(DETECTED), 3), np.float32)
        return Observed(np.zeros((1, 4), np.float32), *points, Masks.none(1), Looks.none(1))


def observe(
    image: np.ndarray, boxes: np.ndarray | None, keypoints: np.ndarray | None, *, max_people: int | None, lift: bool
) -> Observed:
    """Looks at a photo.

    Args:
      image: uint8 (H, W, 3), RGB.
      boxes: (P, 4) xyxy px of the user's own, or None to search for people. No rows mean that nobody is there.
      keypoints: (P, 23, 3) px and confidence of the user's own, or None to detect them. With boxes: of the same people.
      max_people: the most people; None is FOUND_PEOPLE for the detector, and everybody who is given.
      lift: whether the user's own keypoints, which have none in 3D, no masks and no looks, get them from the detector's own look at the
        picture.

    Raises:
      ValueError: what is no image; keypoints or boxes of another shape or not finite; boxes outside the image; boxes and keypoints of
        different numbers of people.
    """
    from genhmr_jax import detect

    detect.check_image(image)
    if boxes is None and keypoints is None:
        found = detect.detect(image, max_people=FOUND_PEOPLE if max_people is None else max_people)
        people = (found.boxes, found.keypoints, found.keypoints3d, found.masks, found.looks)
        return Observed(*people, left_out=found.left_out)
    boxes, keypoints = _rows("boxes", boxes, (4,)), _rows("keypoints", keypoints, (len(DETECTED), 3))
    if boxes is not None and keypoints is not None and len(boxes) != len(keypoints):
        raise ValueError(f"{len(boxes)} boxes but keypoints of {len(keypoints)} people are given: one box a person is needed")
    if boxes is None:
        boxes = keypoint_bounds(keypoints)
    given = np.arange(len(boxes))
    left_out = max(len(boxes) - (len(boxes) if max_people is None else max_people), 0)
    if left_out:
        area = np.prod(boxes[:, 2:] - boxes[:, :2], -1)
        given = np.sort(np.argsort(-area, kind="stable")[:max_people])
        boxes, keypoints = boxes[given], keypoints[given] if keypoints is not None else None
    if keypoints is None:
        found = detect.keypoints_in_boxes(image, boxes)
        return Observed(found.boxes, found.keypoints, found.keypoints3d, found.masks, found.looks, given, left_out)
    keypoints3d = np.zeros_like(keypoints)
    masks, looks = Masks.none(len(keypoints)), Looks.none(len(keypoints))
    if lift and (usable := can_recover(keypoints) & _inside(boxes, image)).any():
        found = detect.keypoints_in_boxes(image, boxes[usable])
        keypoints3d[usable], masks.values[usable], masks.frames[usable] = found.keypoints3d, found.masks.values, found.masks.frames
        looks.inner[usable], looks.regions[usable] = found.looks.inner, found.looks.regions
    return Observed(boxes, keypoints, keypoints3d, masks, looks, given, left_out)


def _rows(name: str, given: np.ndarray | None, shape: tuple[int, ...]) -> Float[np.ndarray, "P *shape"] | None:
    """What the user gives as float32, one row a person; an empty list is nobody. Raises ValueError."""
    if given is None:
        return None
    try:
        rows = np.asarray(given, np.float32)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} are no array of numbers ({error})") from error
    if not rows.size:
        return np.zeros((0, *shape), np.float32)
    if rows.shape[1:] != shape or not np.isfinite(rows).all():
        wanted = ", ".join(map(str, ("P", *shape)))
        raise ValueError(f"{name} have shape {rows.shape} or are not finite: ({wanted}) finite numbers are needed, a row a person")
    return rows


def can_recover(keypoints: Float[np.ndarray, "P K 3"]) -> Bool[np.ndarray, "P"]:
    """Whether enough of each person's keypoints is seen."""
    return (keypoints[..., 2] >= MIN_CONFIDENCE).sum(-1) >= MIN_KEYPOINTS


def _inside(boxes: Float[np.ndarray, "P 4"], image: np.ndarray) -> Bool[np.ndarray, "P"]:
    """Whether boxes have some area inside the image."""
    inside = np.clip(boxes, 0, np.tile(image.shape[1::-1], 2))
    return (inside[:, 2:] - inside[:, :2] >= 1).all(-1)

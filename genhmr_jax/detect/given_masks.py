"""Masks of people that the user gives: they say who is meant, and replace the detector's masks.

A mask takes two ways into the recovery. Its bounding box is the person's box, in which the detector
looks for keypoints. The mask itself becomes the row of `Detections.masks`, to which the refinement
fits the silhouette of the body.

The trust of a given mask is that of a detected one: the share of keypoints on it
(core.silhouette_term). It is not set to 1, because masks of people end where something stands in
front of the person. Keypoints of hidden limbs are then off the mask, and a body that is forced into
the visible part would be wrong. Where the keypoints agree with the mask, the trust is 1 anyway.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int
from PIL import Image

from genhmr_jax.detect.detections import MASK_SIZE, Detections
from genhmr_jax.geometry.keypoints import MIN_CONFIDENCE

BOX_MARGIN = 0.05
"""Sides of the mask's bounding box, added to it on each side: masks often miss hands and feet."""
FRAME = 1.5
"""Side of the square that is kept around a person, in longer extents of the mask and the keypoints.
The crop of a person has 1.25 of them. Beyond the square nothing is known."""


@dataclasses.dataclass(frozen=True)
class GivenMasks:
    """The masks of P people of a photo.

    Attributes:
      boxes: (P, 4) xyxy px inside the photo, with the margin.
      parts: of each person, the mask inside its bounding box, (h, w).
      corners: (P, 2) x, y of the first px of each part.
    """

    boxes: Float[np.ndarray, "P 4"]
    parts: tuple[Bool[np.ndarray, "_h _w"], ...]
    corners: Int[np.ndarray, "P 2"]

    def __len__(self) -> int:
        return len(self.boxes)

    @staticmethod
    def of(masks: Sequence[Bool[np.ndarray, "H W"]]) -> "GivenMasks":
        """The masks of people, each of the size of the photo.

        Raises:
          ValueError: a mask has no person.
        """
        boxes, parts, corners = np.zeros((len(masks), 4), np.float32), [], []
        for i, mask in enumerate(masks):
            if (found := bounds(mask)) is None:
                raise ValueError(f"mask {i + 1} of {len(masks)} is empty: leave the person out")
            x0, y0, x1, y1 = found
            margin = BOX_MARGIN * np.array([x0 - x1, y0 - y1, x1 - x0, y1 - y0])
            boxes[i] = np.clip(found + margin, 0, np.tile(mask.shape[::-1], 2))
            parts.append(mask[y0:y1, x0:x1].copy())
            corners.append((x0, y0))
        return GivenMasks(boxes, tuple(parts), np.array(corners, int).reshape(-1, 2))

    @staticmethod
    def joined(several: Sequence["GivenMasks"]) -> "GivenMasks":
        """The people of several, in their order; nobody if there are none."""
        several = [GivenMasks.of([]), *several]
        return GivenMasks(
            boxes=np.concatenate([given.boxes for given in several]),
            parts=tuple(part for given in several for part in given.parts),
            corners=np.concatenate([given.corners for given in several]),
        )

    def largest(self, count: int) -> Int[np.ndarray, "N"]:
        """The indices, increasing, of the `count` people with the largest boxes."""
        area = np.prod(self.boxes[:, 2:] - self.boxes[:, :2], -1)
        return np.sort(np.argsort(-area, kind="stable")[:count])

    def only(self, chosen: Int[np.ndarray, "N"]) -> "GivenMasks":
        """The people of these indices."""
        return GivenMasks(
            self.boxes[chosen], tuple(self.parts[i] for i in chosen), self.corners[chosen]
        )

    def replace(self, people: Detections) -> Detections:
        """People that were detected in `boxes`, with these masks; `people.given` are indices."""
        masks, frames = people.masks.copy(), people.mask_frames.copy()
        for row, i in enumerate(people.given):
            masks[row], frames[row] = self._cells(i, people.keypoints[row])
        return dataclasses.replace(people, masks=masks, mask_frames=frames)

    def _cells(
        self, i: int, keypoints: Float[np.ndarray, "K 3"]
    ) -> tuple[Float[np.ndarray, "M M"], Float[np.ndarray, "2 3"]]:
        """The mask of a person as cells of a square around it and the keypoints, and its frame.

        The square has whole px, so that a cell is the mean of its px. It may reach beyond the
        photo, where nobody is.
        """
        part, corner = self.parts[i], self.corners[i]
        known = keypoints[keypoints[:, 2] >= MIN_CONFIDENCE, :2]
        points = np.concatenate([known, [corner, corner + part.shape[::-1]]])
        low, high = points.min(0), points.max(0)
        side = int(np.ceil(FRAME * (high - low).max()))
        start = np.floor((low + high - side) / 2).astype(int)
        left, top = (start - corner).tolist()
        square = Image.fromarray(part.astype(np.uint8) * 255)
        square = square.crop((left, top, left + side, top + side))
        cells = np.asarray(square.resize((MASK_SIZE, MASK_SIZE), Image.Resampling.BOX)) / 255.0
        return cells, np.array([[side, 0, start[0]], [0, side, start[1]]], float)


def check_masks(masks: np.ndarray, height: int, width: int) -> GivenMasks:
    """Masks (P, H, W) of a user of the Python interface; bool, or numbers that are not 0 on people.

    Raises:
      ValueError: another shape than that of the photo, or a mask without a person.
    """
    masks = np.asarray(masks)
    if masks.shape[1:] != (height, width):
        problem = f"masks have shape {masks.shape}"
        raise ValueError(f"{problem}: (P, {height}, {width}) is needed, one mask a person")
    return GivenMasks.of(list(masks != 0))


def bounds(mask: Bool[np.ndarray, "H W"]) -> tuple[int, int, int, int] | None:
    """The bounding box (x0, y0, x1, y1) of a mask, whole px; None if it is empty."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    if not len(columns):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1

"""What BlazePose's own looks at each person leave for a network that sees the image by them (the encoder "look"): inner maps, and where it
looked. NumPy on the host."""

import dataclasses

import numpy as np
from jaxtyping import Float

GRID, CHANNELS = 8, 288
"""Cells of an inner map's side, and channels (blazepose.INNER)."""


@dataclasses.dataclass(frozen=True)
class Looks:
    """Looks at P people.

    inner: (P, 2, 8, 8, 288) the inner map of the look at the person and of that at the mirror image, each in the axes of its own region;
    all zero where BlazePose did not look or saw nobody, or another BlazePose looked.
    regions: (P, 4) x, y, side in px and angle in radians, see blazepose.Region.
    """

    inner: Float[np.ndarray, "P 2 8 8 288"]
    regions: Float[np.ndarray, "P 4"]

    def __len__(self) -> int:
        return len(self.regions)

    def __getitem__(self, people: np.ndarray | slice) -> "Looks":
        return Looks(self.inner[people], self.regions[people])

    def padded(self, rows: int) -> "Looks":
        """With empty looks after them, `rows` in all."""
        empty = Looks.none(rows - len(self))
        return Looks(np.concatenate([self.inner, empty.inner]), np.concatenate([self.regions, empty.regions]))

    def moved(self, offset: Float[np.ndarray, "2"]) -> "Looks":
        """The looks in an image of which theirs is a part that begins at `offset`, px."""
        return Looks(self.inner, self.regions + np.float32([*offset, 0, 0]))

    @staticmethod
    def none(people: int) -> "Looks":
        """No looks, at a region of 1 px."""
        return Looks(np.zeros((people, 2, GRID, GRID, CHANNELS), np.float32), np.tile(np.float32([0, 0, 1, 0]), (people, 1)))

    @staticmethod
    def of(evidence: list[dict[str, np.ndarray]]) -> "Looks":
        """From what detector.Look keeps of each person."""
        looks = Looks.none(len(evidence))
        for i, seen in enumerate(evidence):
            looks.regions[i] = seen["region"]
            if seen["inner"].size:
                looks.inner[i] = seen["inner"], seen["mirrored"]
        return looks

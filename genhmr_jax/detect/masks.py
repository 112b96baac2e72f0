"""Masks of people, and what the refinement needs of them: points of the outline, and how far from the person every place is.

NumPy on the host, once per photo; `refinement.silhouette_gaps` compares a body with it.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

from genhmr_jax.geometry.keypoints import MIN_CONFIDENCE

SIZE = 128  # cells of a mask's side
POINTS = 128  # outline points of a person that the refinement looks at
GRID = 64  # cells of the crop's side in which distances to the person are kept
LEVEL = 0.5  # where the outline lies
FEW_POINTS = 16  # an outline with fewer points is none
NEAR = 0.03  # crop sides within which of the mask a keypoint agrees with it
DOUBTED, TRUSTED = 0.6, 0.9  # shares of agreeing keypoints at which a mask counts for nothing, and fully


@dataclasses.dataclass(frozen=True)
class Masks:
    """Masks of P people.

    values: (P, M, M) 0..1, the probability that a cell shows the person; all zero where nobody was seen.
    frames: (P, 2, 3) where a mask lies: px = frame[:, :2] @ (u, v) + frame[:, 2], with u to the right and v down, 0..1 in the mask.
    """

    values: Float[np.ndarray, "P M M"]
    frames: Float[np.ndarray, "P 2 3"]

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, people: np.ndarray | slice) -> "Masks":
        return Masks(self.values[people], self.frames[people])

    def padded(self, rows: int) -> "Masks":
        """With empty masks after them, `rows` in all."""
        empty = Masks.none(rows - len(self))
        return Masks(np.concatenate([self.values, empty.values]), np.concatenate([self.frames, empty.frames]))

    def moved(self, offset: Float[np.ndarray, "2"]) -> "Masks":
        """The masks for an image of which theirs is a part that begins at `offset`, px."""
        return Masks(self.values, self.frames + np.concatenate([np.zeros((2, 2)), np.reshape(offset, (2, 1))], 1))

    @staticmethod
    def none(people: int) -> "Masks":
        """Masks that show nobody."""
        return Masks(np.zeros((people, SIZE, SIZE), np.float32), np.tile(np.eye(2, 3, dtype=np.float32), (people, 1, 1)))

    def targets(
        self, keypoints: Float[np.ndarray, "P K 3"], crops: Float[np.ndarray, "P 3"], width: int, height: int
    ) -> dict[str, np.ndarray]:
        """What the refinement shall meet.

        Args:
          keypoints: px and confidence; those below MIN_CONFIDENCE do not vote on whether to trust the mask.
          crops: centre and side, px.
          width, height: of the image, px.

        Returns:
          outline (P, POINTS, 2): px; outside (P, GRID, GRID): distance of the crop's cells to the person, crop sides, 0 inside and
          where the mask says nothing (beyond the image or the mask); trust (P,) 0..1, by how many keypoints lie on the mask.
        """
        rows = zip(self.values, self.frames, keypoints, crops, strict=True)
        found = [_targets(*row, np.array([width, height])) for row in rows]
        shapes = {"outline": (POINTS, 2), "outside": (GRID, GRID), "trust": ()}
        return {name: np.array([row[i] for row in found], np.float32).reshape(-1, *s) for i, (name, s) in enumerate(shapes.items())}


def _targets(
    values: np.ndarray, frame: np.ndarray, keypoints: np.ndarray, crop: np.ndarray, size: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """The targets of one person; zeros where the mask shows nobody."""
    points = crossings(values) @ frame[:, :2].T + frame[:, 2]
    cell = np.linalg.norm(frame[:, :2], axis=0).max() / len(values)
    points = points[((points > cell) & (points < size - cell)).all(-1)]  # where the picture cuts a person is no outline
    if len(points) < FEW_POINTS:
        return np.zeros((POINTS, 2)), np.zeros((GRID, GRID)), 0.0
    dense, outline = (points[np.linspace(0, len(points) - 1, count).round().astype(int)] for count in (4 * POINTS, POINTS))
    places = crop[:2] + crop[2] * ((np.stack(np.meshgrid(*[np.arange(GRID)] * 2), -1) + 0.5) / GRID - 0.5)
    outside = _outside(places.reshape(-1, 2), dense, values, frame, size) / crop[2]
    seen = keypoints[keypoints[:, 2] >= MIN_CONFIDENCE]
    agree = _outside(seen[:, :2], dense, values, frame, size) <= NEAR * crop[2]
    share = float(agree @ seen[:, 2] / max(seen[:, 2].sum(), 1e-6))
    return outline, outside.reshape(GRID, GRID), float(np.clip((share - DOUBTED) / (TRUSTED - DOUBTED), 0, 1))


def _outside(places: np.ndarray, outline: np.ndarray, values: np.ndarray, frame: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Distance, px, of places (N, 2) px to the outline; 0 on the person and where the mask says nothing."""
    cells = len(values) * (np.linalg.solve(frame[:, :2], (places - frame[:, 2]).T).T)
    known = ((cells >= 0) & (cells < len(values))).all(-1) & ((places >= 0) & (places <= size)).all(-1)
    column, row = np.clip(cells.astype(int), 0, len(values) - 1).T
    off = known & (values[row, column] < LEVEL)
    distance = np.zeros(len(places))
    squared = (places[off] ** 2).sum(-1)[:, None] + (outline**2).sum(-1) - 2 * places[off] @ outline.T
    distance[off] = np.sqrt(np.maximum(squared.min(-1, initial=np.inf), 0.0)) if off.any() else 0.0
    return distance


def crossings(values: Float[np.ndarray, "M M"]) -> Float[np.ndarray, "N 2"]:
    """Where the mask crosses LEVEL between neighbouring cells, linearly between their centres; (u, v) in 0..1, from the top down."""
    found = []
    for grid, order in ((values, [0, 1]), (values.T, [1, 0])):
        row, column = np.nonzero((grid[:, 1:] >= LEVEL) != (grid[:, :-1] >= LEVEL))
        left, right = grid[row, column], grid[row, column + 1]
        found.append(np.stack([column + (LEVEL - left) / (right - left) + 0.5, row + 0.5], -1)[:, order])
    points = np.concatenate(found) / len(values)
    return points[np.argsort(points[:, 1], kind="stable")]

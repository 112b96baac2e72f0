"""MediaPipe's hand landmark network: 21 keypoints of the hand in a region of an image.

Facts are from github.com/google/mediapipe, mediapipe/modules/hand_landmark/hand_landmark_cpu.pbtxt,
and the next region is that of geometry/hand_crop.py.
"""

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, Float

from genhmr_jax.detect import graph_runner
from genhmr_jax.detect.blazepose import Region
from genhmr_jax.detect.graph_runner import Graph
from genhmr_jax.geometry.boxes import share_of_smaller
from genhmr_jax.geometry.hand_crop import palm_region
from genhmr_jax.io.program_store import stored

NETWORK = "handlandmark-lite"
SIZE = 224
BATCHES = (1, 4)  # numbers of regions of a program; fewer programs compile faster
GRID, CHANNELS = 7, 672
FEATURES = "t161"
"""Node of the map of 7x7x672 whose mean the network's last layers read."""
EARLY, EARLY_SHAPE = "t144", (14, 14, 64)
"""Node of the map from which the network computes FEATURES, and the size of that map."""
# No pass follows below this change of the region (in sides, radians, and as a logarithm of the
# ratio of sides) if the presence is not smaller than CLEAR.
SETTLED, CLEAR = 0.1, 0.9
# Two estimates are of one hand from this mean distance of keypoints, in sides of the larger box, or
# from this share of the smaller box that they have in common.
SAME_KEYPOINTS, SAME_BOX = 0.3, 0.7


@dataclasses.dataclass(frozen=True)
class HandEstimate:
    """The network's estimate for one region. HAND21 is the order of its points.

    Attributes:
      points: px of the image.
      landmarks: as the network gives them: px of its input.
      world: metres from the approximate centre of the hand, in the axes of the region.
      presence: probability 0..1 that there is a hand.
      right: probability 0..1 that it is a right hand.
      early: the map EARLY.
      region: of the image.
      mirrored: whether the network saw the mirror image of the region. Landmarks, world and early
        are those of this mirror image.
    """

    points: Float[np.ndarray, "21 2"]
    landmarks: Float[np.ndarray, "21 3"]
    world: Float[np.ndarray, "21 3"]
    presence: float
    right: float
    early: Float[np.ndarray, "14 14 64"]
    region: Region
    mirrored: bool = False

    def box(self) -> Float[np.ndarray, "4"]:
        """xyxy px around the points."""
        return np.concatenate([self.points.min(0), self.points.max(0)])

    def next_region(self) -> Region:
        """The region of the next pass."""
        return next_region(self.points)

    def settled(self) -> bool:
        """Whether the hand is clear and the next region nearly the same: no pass is needed."""
        after, before = self.next_region(), self.region
        moved = np.hypot(after.x - before.x, after.y - before.y) / before.side
        turned = np.abs(np.angle(np.exp(1j * (after.angle - before.angle))))
        grown = np.abs(np.log(after.side / before.side))
        return self.presence >= CLEAR and bool(max(moved, turned, grown) < SETTLED)

    def is_same(self, other: "HandEstimate") -> bool:
        """Whether two estimates are of one hand: keypoints agree, or one box is in the other."""
        boxes = self.box(), other.box()
        sides = [box[2:] - box[:2] for box in boxes]
        distance = np.linalg.norm(self.points - other.points, axis=-1).mean()
        if distance < SAME_KEYPOINTS * max(*sides[0], *sides[1]):
            return True
        return bool(share_of_smaller(*boxes) > SAME_BOX)


def next_region(points: Float[np.ndarray, "21 2"]) -> Region:
    """The region that the keypoints of a hand define, px: the middle knuckle is above the wrist."""
    return Region(*palm_region(points).tolist())


def estimates(
    image: np.ndarray, regions: Sequence[Region], mirrored: Sequence[bool] | None = None
) -> list[HandEstimate]:
    """Run the network on regions of an image.

    Args:
      mirrored: of which regions the network gets the mirror image; None: of none.
    """
    crops = [region.crop(image, SIZE) for region in regions]
    flags = [False] * len(crops) if mirrored is None else mirrored
    seen = [crop[:, ::-1] if flag else crop for crop, flag in zip(crops, flags, strict=True)]
    return estimates_of_crops(seen, regions, flags)


def estimates_of_crops(
    crops: Sequence[Float[np.ndarray, "224 224 3"]],
    regions: Sequence[Region],
    mirrored: Sequence[bool] | None = None,
) -> list[HandEstimate]:
    """Run the network on the pixels of regions, 0..1, or of the mirror images of some."""
    mirrored = [False] * len(regions) if mirrored is None else mirrored
    graph, weights = graph_runner.load(NETWORK)
    hands: list[HandEstimate] = []
    while len(hands) < len(regions):
        chosen = slice(len(hands), len(hands) + rows_of_program(len(regions) - len(hands)))
        found = regions[chosen]
        batch = np.zeros((chosen.stop - chosen.start, SIZE, SIZE, 3), np.float32)
        batch[: len(found)] = crops[chosen]
        outputs = [np.asarray(value) for value in _landmarks(weights, batch, graph)]
        rows = zip(found, mirrored[chosen], *outputs, strict=False)
        hands += [_hand(*row) for row in rows]
    return hands


def rows_of_program(left: int) -> int:
    """The rows of the next program, one of BATCHES, with `left` rows left.

    The larger program is chosen if it is at least three quarters full.
    """
    one, several = BATCHES
    return several if 4 * left >= 3 * several else one


def preload() -> None:
    """Read the stored programs of `estimates`."""
    graph, weights = graph_runner.load(NETWORK)
    for batch in BATCHES:
        _landmarks.preload(weights, np.zeros((batch, SIZE, SIZE, 3), np.float32), graph)


def _hand(
    region: Region,
    mirrored: bool,
    landmarks: Float[np.ndarray, "63"],
    world: Float[np.ndarray, "63"],
    presence: Float[np.ndarray, "1"],
    handedness: Float[np.ndarray, "1"],
    early: Float[np.ndarray, "14 14 64"],
) -> HandEstimate:
    """The estimate for one region."""
    landmarks = landmarks.reshape(-1, 3).astype(np.float64)
    world = world.reshape(-1, 3).astype(np.float64)
    seen = landmarks[:, :2] * [-1, 1] + [SIZE, 0] if mirrored else landmarks[:, :2]
    points = region.to_image(seen, SIZE)
    # MediaPipe gives this number the label "Left" (handedness.txt), but expects a mirrored picture.
    right = float(handedness[0])
    if mirrored:
        right = 1.0 - right
    return HandEstimate(
        points, landmarks, world, float(presence[0]), right, early, region, mirrored
    )


@stored("graph")
def _landmarks(
    weights: dict[str, Array], crops: Float[Array, "B 224 224 3"], graph: Graph
) -> tuple[jax.Array, ...]:
    """Landmarks (B, 63), world (B, 63), presence (B, 1), handedness (B, 1), the map EARLY."""
    names = ["landmarks", "world", "presence", "handedness", EARLY]
    result = graph_runner.run(graph, weights, {graph.inputs[0]: crops}, names)
    return tuple(result[name] for name in names)

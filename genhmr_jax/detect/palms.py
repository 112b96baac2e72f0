"""MediaPipe's palm detector: the palms of an image, and the regions of their hands.

Facts are from these files of github.com/google/mediapipe: palm_detection_cpu.pbtxt in
mediapipe/modules/palm_detection (anchors, decoding, suppression) and
palm_detection_detection_to_roi.pbtxt in mediapipe/modules/hand_landmark (the hand's region).
"""

import dataclasses
import functools

import numpy as np
from jaxtyping import Array, Float

from genhmr_jax.detect import graph_runner
from genhmr_jax.detect.blazepose import Region
from genhmr_jax.detect.graph_runner import Graph
from genhmr_jax.geometry.boxes import box_overlap
from genhmr_jax.io.program_store import stored

NETWORK = "palmdetection-full"
SIZE = 192
STRIDES = (8, 16, 16, 16)  # of the four layers of anchors
PER_CELL = 2  # anchors of a layer at the centre of each of its cells
POINTS = 7
WRIST, MIDDLE_KNUCKLE = 0, 2  # of the points
MIN_SCORE = 0.5
SAME_PALM = 0.3  # intersection over union
# The region of the hand, in units of the palm's box.
REGION_SCALE, REGION_SHIFT = 2.6, -0.5


@dataclasses.dataclass(frozen=True)
class Palm:
    """A detected palm.

    Attributes:
      centre, sides: (2,) of its box, px. The box has the axes of the image.
      points: (7, 2) px: wrist, knuckles of index, middle, ring and little finger, and the first two
        joints of the thumb.
      score: 0..1.
    """

    centre: Float[np.ndarray, "2"]
    sides: Float[np.ndarray, "2"]
    points: Float[np.ndarray, "7 2"]
    score: float

    def region(self) -> Region:
        """The region of the hand: upright in it, from the wrist to the middle knuckle."""
        up = self.points[MIDDLE_KNUCKLE] - self.points[WRIST]
        angle = float(np.arctan2(up[0], -up[1]))
        side = max(REGION_SCALE * float(self.sides.max()), 1.0)
        down = Region(0.0, 0.0, 1.0, angle).axes()[:, 1]
        x, y = self.centre + REGION_SHIFT * self.sides[1] * down
        return Region(float(x), float(y), side, angle)


def preload(network: str = NETWORK) -> None:
    """Read the stored program of `find`."""
    graph, weights = graph_runner.load(network)
    _boxes.preload(weights, np.zeros((1, SIZE, SIZE, 3), np.float32), graph)


def find(image: np.ndarray, square: Region, network: str = NETWORK) -> list[Palm]:
    """The palms of an image, uint8 (H, W, 3), by decreasing score.

    Args:
      image: the image.
      square: where to search, without rotation. It is reduced to SIZE, so that a palm much smaller
        than a tenth of it is missed.
      network: see `graph_runner.load`.
    """
    # 1. The network, on the square.
    graph, weights = graph_runner.load(network)
    raw, logits = _boxes(weights, square.crop(image, SIZE)[None], graph)
    raw, logits = np.asarray(raw, np.float64)[0], np.asarray(logits, np.float64)[0, :, 0]
    scores = 1.0 / (1.0 + np.exp(-np.clip(logits, -100, 100)))
    likely = scores >= MIN_SCORE
    raw, scores = raw[likely], scores[likely]
    # 2. Each row is centre, sides, and points: px of the input. All but sides are relative to the
    # anchor.
    offsets = anchors()[likely]
    sides = raw[:, 2:4] * (square.side / SIZE)
    points = np.concatenate([raw[:, None, :2], raw[:, 4:].reshape(-1, POINTS, 2)], 1)
    points = square.to_image(points + offsets[:, None], SIZE)
    return _merged(points[:, 0], sides, points[:, 1:], scores)


@functools.cache
def anchors() -> Float[np.ndarray, "2016 2"]:
    """The centres of the anchors, px of the input.

    Layers of the same stride share their cells: all anchors of a cell follow each other.
    """
    parts = []
    for stride in dict.fromkeys(STRIDES):
        cells = (np.arange(SIZE // stride) + 0.5) * stride
        grid = np.stack(np.meshgrid(cells, cells), -1).reshape(-1, 2)
        parts.append(np.repeat(grid, PER_CELL * STRIDES.count(stride), 0))
    return np.concatenate(parts)


def _merged(
    centres: Float[np.ndarray, "N 2"],
    sides: Float[np.ndarray, "N 2"],
    points: Float[np.ndarray, "N 7 2"],
    scores: Float[np.ndarray, "N"],
) -> list[Palm]:
    """Each palm once: the mean, weighted by scores, of the boxes that overlap the best one."""
    palms: list[Palm] = []
    boxes = np.concatenate([centres - sides / 2, centres + sides / 2], -1)
    left = np.argsort(-scores, kind="stable")
    while len(left):
        best = left[0]
        same = box_overlap(boxes[left], boxes[best]) > SAME_PALM
        same[0] = True
        mean = functools.partial(np.average, axis=0, weights=scores[left[same]])
        parts = (mean(values[left[same]]) for values in (centres, sides, points))
        palms.append(Palm(*parts, float(scores[best])))
        left = left[~same]
    return palms


@stored("graph")
def _boxes(
    weights: dict[str, Array], images: Float[Array, "B 192 192 3"], graph: Graph
) -> tuple[Float[Array, "B 2016 18"], Float[Array, "B 2016 1"]]:
    """The network's outputs: boxes with points, and logits of scores."""
    result = graph_runner.run(graph, weights, {graph.inputs[0]: images})
    return result["boxes"], result["scores"]

"""MoveNet multipose: the people of an image, each with a box and COCO's 17 keypoints.

The network runs on the letterboxed image at two sizes, because the smaller one misses small people
and the larger one large people. The results are merged. It returns at most 6 people for each size.
"""

import numpy as np
from jaxtyping import Array, Float, Int
from PIL import Image
from smpl_jax.keypoints import COCO17

from genhmr_jax.detect import graph_runner
from genhmr_jax.detect.graph_runner import Graph
from genhmr_jax.geometry.boxes import box_areas, box_overlap
from genhmr_jax.io.program_store import stored

NETWORK = "movenet-multipose"
SIZES = (256, 512)
LONG = 1.6  # aspect ratio of a long image: 16:9 is long, 3:2 is not
CROWD = 5  # people in one run
MOST_SQUARES = 12  # along a side
KEYPOINTS = len(COCO17)
_SIGMA = np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89])
COCO_TOLERANCE = 2 * _SIGMA / 1000
"""Tolerance of each keypoint relative to the root of the person's area: 2 sigma.

From cocodataset.org, keypoint evaluation.
"""


@stored("graph")
def _people(
    weights: dict[str, Array], image: Int[Array, "1 H W 3"], graph: Graph
) -> Float[Array, "6 56"]:
    """The network's output for a letterboxed image."""
    (output,) = graph.outputs
    return graph_runner.run(graph, weights, {graph.inputs[0]: image}, [output])[output][0]


def preload() -> None:
    """Read the stored programs."""
    graph, weights = graph_runner.load(NETWORK)
    for size in SIZES:
        _people.preload(weights, np.zeros((1, size, size, 3), np.int32), graph)


def run(
    image: np.ndarray, size: int, network: str = NETWORK
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Run the network on an image, uint8 (H, W, 3), letterboxed to a square.

    Args:
      image: the image.
      size: side of the square, px, a multiple of 32.
      network: see `graph_runner.load`.

    Returns:
      boxes (6, 4) xyxy px of the image, scores (6,), keypoints (6, 17, 3) px and score; all six
      rows, also those of low score.
    """
    height, width = image.shape[:2]
    scale = size / max(height, width)
    shape = max(1, round(width * scale)), max(1, round(height * scale))
    canvas = np.zeros((1, size, size, 3), np.int32)
    canvas[0, : shape[1], : shape[0]] = np.asarray(
        Image.fromarray(image).resize(shape, Image.Resampling.BILINEAR)
    )
    graph, weights = graph_runner.load(network)
    raw = np.asarray(_people(weights, canvas, graph), np.float64)
    # The side of the square in px of the image.
    unit = size * np.array([width / shape[0], height / shape[1]])
    keypoints = raw[:, : 3 * KEYPOINTS].reshape(-1, KEYPOINTS, 3)[..., [1, 0, 2]]
    keypoints[..., :2] *= unit
    boxes = raw[:, 3 * KEYPOINTS :][:, [1, 0, 3, 2]] * np.tile(unit, 2)
    boxes = np.clip(boxes, 0, [width, height, width, height])
    return boxes, raw[:, -1], keypoints


def find_people(
    image: np.ndarray, threshold: float = 0.2
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The people in an image, uint8 (H, W, 3), each once, by decreasing score.

    The network also runs on squares of a long image, in which letterboxing makes people small, and
    of a crowd, because one run finds at most 6 people.

    Returns:
      boxes (N, 4) xyxy px, scores (N,) 0..1, keypoints (N, 17, 3) px and score.
    """
    height, width = image.shape[:2]
    found = [run(image, size) for size in SIZES]
    if max(height, width) > LONG * min(height, width):
        found += _run_on_squares(image, min(height, width))
    if any((scores >= threshold).sum() >= CROWD for _, scores, _ in found):
        found += _run_on_squares(image, max(1, min(height, width) // 2))
    return _distinct(found, threshold)


def _distinct(
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]], threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The people of several runs, each once, by decreasing score."""
    boxes, scores, keypoints = (np.concatenate(parts) for parts in zip(*found, strict=True))
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        is_person = scores[i] >= threshold and (boxes[i, 2:] > boxes[i, :2]).all()
        if is_person and not any(
            same_person(boxes[i], keypoints[i], boxes[j], keypoints[j]) for j in kept
        ):
            kept.append(int(i))
    return boxes[kept], scores[kept], keypoints[kept]


def find_turned(
    image: np.ndarray, turns: int, threshold: float = 0.2
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The people in an image that is turned anticlockwise by quarter turns.

    Returns:
      as find_people, in px of the image itself. Squares of a long image are not searched.
    """
    picture = np.ascontiguousarray(np.rot90(image, turns))
    boxes, scores, keypoints = _distinct([run(picture, size) for size in SIZES], threshold)
    middle, own = np.array(picture.shape[1::-1]) / 2, np.array(image.shape[1::-1]) / 2
    back = np.linalg.matrix_power(np.array([[0, -1], [1, 0]]), turns)
    corners = (boxes.reshape(-1, 2, 2) - middle) @ back.T + own
    turned = keypoints.copy()
    turned[..., :2] = (keypoints[..., :2] - middle) @ back.T + own
    return np.concatenate([corners.min(1), corners.max(1)], -1), scores, turned


def _run_on_squares(
    image: np.ndarray, side: int
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Run on squares that overlap by half.

    People whom the edge of a square cuts get the score 0: a neighbouring square shows them whole.
    """
    height, width = image.shape[:2]
    count = lambda n: min(MOST_SQUARES, 1 + -(-2 * (n - side) // side))
    lefts, tops = (np.linspace(0, n - side, count(n)).astype(int) for n in (width, height))
    found = []
    for x, y in ((x, y) for y in tops for x in lefts):
        square = np.ascontiguousarray(image[y : y + side, x : x + side])
        boxes, scores, keypoints = run(square, SIZES[0])
        margin = 0.02 * side
        cut = (boxes[:, :2] < margin) & np.array([x > 0, y > 0])
        cut |= (boxes[:, 2:] > side - margin) & np.array([x + side < width, y + side < height])
        scores = np.where(cut.any(-1), 0.0, scores)
        found.append((boxes + [x, y, x, y], scores, keypoints + [x, y, 0]))
    return found


def same_person(
    box_a: np.ndarray, keypoints_a: np.ndarray, box_b: np.ndarray, keypoints_b: np.ndarray
) -> bool:
    """Whether two detections are of one person.

    They are if their boxes nearly coincide, or if these overlap and the keypoints agree. A test of
    the overlap only would merge two people who embrace. Keypoints are compared by COCO's object
    keypoint similarity.
    """
    overlap = box_overlap(box_a, box_b)
    if overlap > 0.7:
        return True
    area = min(box_areas(box_a), box_areas(box_b))
    distance = np.sum((keypoints_a[:, :2] - keypoints_b[:, :2]) ** 2, -1)
    similarity = np.exp(-distance / (2 * area * COCO_TOLERANCE**2))
    weights = keypoints_a[:, 2] * keypoints_b[:, 2] + 1e-6
    return overlap > 0.1 and float(np.average(similarity, weights=weights)) > 0.3

"""MoveNet multipose: the people of an image, each a box and COCO's 17 keypoints.

The network sees a letterboxed copy of the image at two sizes, because the small one loses small
people and the large one large people; the findings of both are merged. It returns at most 6 people
a size.
"""

import functools

import jax
import numpy as np
from jaxtyping import Array, Float, Int
from PIL import Image

from genhmr_jax.detect import graph_runner

SIZES = (256, 512)
LONG = 1.6  # a photo's 3:2 is not long, a wide screen's 16:9 is
CROWD = 5
MOST_SQUARES = 12  # along a side
KEYPOINTS = 17
# COCO's tolerance per keypoint, relative to the root of the person's area (cocodataset.org,
# keypoint evaluation): 2 sigma.
COCO_TOLERANCE = (
    2 * np.array([26, 25, 25, 35, 35, 79, 79, 72, 72, 62, 62, 107, 107, 87, 87, 89, 89]) / 1000
)


@functools.cache
def _network(name: str):
    description, _ = graph_runner.load(name)
    (output,) = description.outputs

    @jax.jit
    def apply(weights: dict[str, Array], image: Int[Array, "1 H W 3"]) -> Float[Array, "6 56"]:
        return graph_runner.run(description, weights, {description.inputs[0]: image}, [output])[
            output
        ][0]

    return apply


def run(
    image: np.ndarray, size: int, network: str = "movenet-multipose"
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs the network on an image, uint8 (H, W, 3), letterboxed to a square of `size` px, a
    multiple of 32.

    Returns:
      boxes (6, 4) xyxy px of the image, scores (6,), keypoints (6, 17, 3) px and score: the
      network's guesses, good or not.
    """
    height, width = image.shape[:2]
    scale = size / max(height, width)
    shape = max(1, round(width * scale)), max(1, round(height * scale))
    canvas = np.zeros((1, size, size, 3), np.int32)
    canvas[0, : shape[1], : shape[0]] = np.asarray(
        Image.fromarray(image).resize(shape, Image.Resampling.BILINEAR)
    )
    raw = np.asarray(_network(network)(graph_runner.load(network)[1], canvas), np.float64)
    unit = size * np.array(
        [width / shape[0], height / shape[1]]
    )  # px of the image in one width of the canvas
    keypoints = raw[:, : 3 * KEYPOINTS].reshape(-1, KEYPOINTS, 3)[..., [1, 0, 2]]
    keypoints[..., :2] *= unit
    boxes = raw[:, 3 * KEYPOINTS :][:, [1, 0, 3, 2]] * np.tile(unit, 2)
    boxes = np.clip(boxes, 0, [width, height, width, height])
    return boxes, raw[:, -1], keypoints


def find_people(
    image: np.ndarray, threshold: float = 0.2
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The people in an image, uint8 (H, W, 3), each once, the most certain first.

    The network also runs on squares of a long image and of a crowd: a letterbox makes people small,
    and one run finds 6 at most.

    Returns:
      boxes (N, 4) xyxy px, scores (N,) 0..1, keypoints (N, 17, 3) px and score.
    """
    height, width = image.shape[:2]
    found = [run(image, size) for size in SIZES]
    if max(height, width) > LONG * min(height, width):
        found += _run_on_squares(image, min(height, width))
    if any((scores >= threshold).sum() >= CROWD for _, scores, _ in found):
        found += _run_on_squares(image, max(1, min(height, width) // 2))
    boxes, scores, keypoints = (np.concatenate(parts) for parts in zip(*found, strict=True))
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        is_person = scores[i] >= threshold and (boxes[i, 2:] > boxes[i, :2]).all()
        if is_person and not any(
            same_person(boxes[i], keypoints[i], boxes[j], keypoints[j]) for j in kept
        ):
            kept.append(int(i))
    return boxes[kept], scores[kept], keypoints[kept]


def _run_on_squares(
    image: np.ndarray, side: int
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Runs on squares that overlap by half. People whom a square's edge cuts score 0 there: a
    neighbouring square has them whole."""
    height, width = image.shape[:2]
    lefts, tops = (
        np.linspace(0, n - side, min(MOST_SQUARES, 1 + -(-2 * (n - side) // side))).astype(int)
        for n in (width, height)
    )
    found = []
    for x, y in ((x, y) for y in tops for x in lefts):
        boxes, scores, keypoints = run(
            np.ascontiguousarray(image[y : y + side, x : x + side]), SIZES[0]
        )
        margin = 0.02 * side
        cut_before = (boxes[:, :2] < margin) & np.array([x > 0, y > 0])
        cut_behind = (boxes[:, 2:] > side - margin) & np.array(
            [x + side < width, y + side < height]
        )
        found.append(
            (
                boxes + [x, y, x, y],
                np.where((cut_before | cut_behind).any(-1), 0.0, scores),
                keypoints + [x, y, 0],
            )
        )
    return found


def same_person(
    box_a: np.ndarray, keypoints_a: np.ndarray, box_b: np.ndarray, keypoints_b: np.ndarray
) -> bool:
    """Whether two findings are one person: their boxes nearly agree, or they overlap and the
    keypoints agree.

    Overlap of boxes alone would merge two people who embrace. Keypoints are compared as COCO does
    (object keypoint similarity).
    """
    overlap = iou(box_a, box_b)
    if overlap > 0.7:
        return True
    area = min(np.prod(box_a[2:] - box_a[:2]), np.prod(box_b[2:] - box_b[:2]))
    distance = np.sum((keypoints_a[:, :2] - keypoints_b[:, :2]) ** 2, -1)
    similarity = np.exp(-distance / (2 * area * COCO_TOLERANCE**2))
    return (
        overlap > 0.1
        and float(np.average(similarity, weights=keypoints_a[:, 2] * keypoints_b[:, 2] + 1e-6))
        > 0.3
    )


def iou(box_a: np.ndarray, box_b: np.ndarray) -> float:
    """Intersection over union of two boxes xyxy."""
    sides = np.clip(np.minimum(box_a[2:], box_b[2:]) - np.maximum(box_a[:2], box_b[:2]), 0, None)
    intersection = sides.prod()
    return float(
        intersection
        / max(np.prod(box_a[2:] - box_a[:2]) + np.prod(box_b[2:] - box_b[:2]) - intersection, 1e-9)
    )

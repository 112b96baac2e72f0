"""Photo -> people: boxes by MoveNet multipose, 23 keypoints each by BlazePose, checked against MoveNet's 17."""

import dataclasses

import numpy as np
from jaxtyping import Float

from genhmr_jax.detect import blazepose, lifter, movenet
from genhmr_jax.detect.blazepose import Region
from genhmr_jax.detect.blazepose_features import Looks
from genhmr_jax.detect.masks import SIZE, Masks
from genhmr_jax.geometry.keypoints import DETECTED, DETECTED_FLIP

LOOKS = 2  # BlazePose's second look is at the region that its first one asked for
IS_PERSON = 0.5
NEAR_MISS = 0.1  # with nobody above the threshold, the best guess above this one counts if BlazePose agrees
BOX_MARGIN = 1.25
AGREE = 0.05  # sides of the region: two looks that put a keypoint farther apart contradict each other
HIPS, SHOULDERS = [11, 12], [5, 6]  # in COCO's order


@dataclasses.dataclass(frozen=True)
class Detections:
    """P people of an image.

    boxes: (P, 4) xyxy px. scores: (P,) 0..1. keypoints: (P, 23, 3) x px, y px and confidence 0..1, in the order of `names`; a
    keypoint outside the image has confidence 0. keypoints3d: (P, 23, 3) the same keypoints in metres from mid-hip as the lifter believes
    them to lie: x right, y down, z away from the camera; all zero where BlazePose sees nobody. masks: of the people, empty there too.
    looks: BlazePose's, from which keypoints and masks come. left_out: how many people more were found than were asked for.
    """

    boxes: Float[np.ndarray, "P 4"]
    scores: Float[np.ndarray, "P"]
    keypoints: Float[np.ndarray, "P K 3"]
    keypoints3d: Float[np.ndarray, "P K 3"]
    masks: Masks
    looks: Looks
    names: tuple[str, ...] = DETECTED
    left_out: int = 0

    def __len__(self) -> int:
        return len(self.boxes)

    @staticmethod
    def of(people: list[tuple[np.ndarray, float, "Look"]]) -> "Detections":
        """From a box, a score and a look per person, perhaps of nobody."""
        rows = [(box, score, look.keypoints, look.keypoints3d, look.mask, look.frame) for box, score, look in people]
        parts = zip(*rows, strict=True) if people else [()] * 6
        shapes = ((-1, 4), (-1,), (-1, len(DETECTED), 3), (-1, len(DETECTED), 3), (-1, SIZE, SIZE), (-1, 2, 3))
        arrays = [np.asarray(part, np.float32).reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
        return Detections(*arrays[:4], Masks(*arrays[4:]), Looks.of([look.evidence for _, _, look in people]))


@dataclasses.dataclass(frozen=True)
class Look:
    """BlazePose's look at a person: keypoints (23, 3), 3D keypoints (23, 3), mask (M, M) and its frame (2, 3), see Detections; its
    certainty that there is a person; and the evidence, see blazepose.Landmarks, with "mirrored": the inner map of a look at the mirror
    image, zero where no person was seen there."""

    keypoints: Float[np.ndarray, "K 3"]
    keypoints3d: Float[np.ndarray, "K 3"]
    mask: Float[np.ndarray, "M M"]
    frame: Float[np.ndarray, "2 3"]
    person: float
    evidence: dict[str, np.ndarray]


def detect(image: np.ndarray, max_people: int = 10, threshold: float = 0.2, network: str = "blazepose-full") -> Detections:
    """Finds people and their keypoints.

    Args:
      image: uint8 (H, W, 3), RGB, any size.
      max_people: the most to return; those with the largest score times box side come first.
      threshold: least score of MoveNet.
      network: the BlazePose to use, see `graph.load`; the heavy one is slower and more exact, tools/build_eyes.py makes it.

    Raises:
      ValueError: the image has another shape or type. FileNotFoundError: there is no such network.
    """
    people, left_out = _people(image, max_people, threshold, network)
    return dataclasses.replace(Detections.of(people), left_out=left_out)


def looks(image: np.ndarray, max_people: int = 10, threshold: float = 0.2, network: str = "blazepose-full") -> list[Look]:
    """The looks at the people of `detect`, with all that BlazePose put out."""
    return [look for _, _, look in _people(image, max_people, threshold, network)[0]]


def _people(image: np.ndarray, max_people: int, threshold: float, network: str) -> tuple[list[tuple[np.ndarray, float, Look]], int]:
    """Box, score and look of each person, see `detect`, and how many people more were found."""
    check_image(image)
    boxes, scores, keypoints = movenet.find_people(image, min(threshold, NEAR_MISS))
    sure = scores >= threshold
    if not sure.any():
        return _doubtful_person(image, boxes, scores, keypoints, network), 0
    boxes, scores, keypoints = boxes[sure], scores[sure], keypoints[sure]
    order = np.argsort(-scores * np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], -1)), kind="stable")
    people = [(boxes[i], scores[i], _look(image, boxes[i], keypoints[i], network)) for i in order[:max_people]]
    return people, max(len(order) - max_people, 0)


def keypoints_in_boxes(image: np.ndarray, boxes: np.ndarray, network: str = "blazepose-full") -> Detections:
    """Keypoints of the person in each box, in place of a search for people.

    Args:
      image: uint8 (H, W, 3), RGB.
      boxes: (P, 4) xyxy px, with some area inside the image.
      network: as in `detect`.

    Returns:
      as many people as boxes, in their order; their score is BlazePose's that there is a person.

    Raises:
      ValueError: the image or the boxes have a wrong shape, are not finite, or a box has no area inside the image.
    """
    check_image(image)
    boxes = np.asarray(boxes, np.float64)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or not np.isfinite(boxes).all():
        raise ValueError(f"boxes have shape {boxes.shape} or are not finite: (P, 4) finite numbers x0, y0, x1, y1 are needed")
    height, width = image.shape[:2]
    inside = np.clip(boxes, 0, [width, height, width, height])
    if not (inside[:, 2:] - inside[:, :2] >= 1).all():
        raise ValueError(f"a box has no area inside the image of {width} x {height} px: give boxes as x0, y0, x1, y1 in px")
    people = []
    for box in boxes:
        look = _look(image, box, _movenet_in_box(image, box), network)
        people.append((box, look.person, look))
    return Detections.of(people)


def check_image(image: np.ndarray) -> None:
    """Refuses what is not an RGB image: ValueError."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        found = f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__
        raise ValueError(f"the image is {found}: uint8 (height, width, 3), RGB, is needed")


def _doubtful_person(image: np.ndarray, boxes: np.ndarray, scores: np.ndarray, keypoints: np.ndarray, network: str) -> list[tuple]:
    """MoveNet's best near miss, if BlazePose sees a person there."""
    if not len(boxes):
        return []
    look = _look(image, boxes[0], keypoints[0], network)
    return [(boxes[0], scores[0], look)] if look.person >= IS_PERSON else []


def _movenet_in_box(image: np.ndarray, box: np.ndarray) -> np.ndarray | None:
    """MoveNet's keypoints (17, 3) in px of the image for the person in a box, or None if it sees nobody there."""
    height, width = image.shape[:2]
    margin = (BOX_MARGIN - 1) / 2 * np.tile(box[2:] - box[:2], 2) * [-1, -1, 1, 1]
    x0, y0, x1, y1 = np.clip(np.round(box + margin), 0, [width, height, width, height]).astype(int)
    boxes, scores, keypoints = movenet.look(np.ascontiguousarray(image[y0:y1, x0:x1]), movenet.SIZES[0])
    offset = np.array([x0, y0], float)
    overlap = [movenet.iou(found + np.tile(offset, 2), box) * (score > NEAR_MISS) for found, score in zip(boxes, scores, strict=True)]
    best = int(np.argmax(overlap))
    return keypoints[best] + [*offset, 0] if overlap[best] > 0.3 else None


def _look(image: np.ndarray, box: np.ndarray, coco: np.ndarray | None, network: str) -> Look:
    """Looks at the person of a box.

    Args:
      coco: MoveNet's (17, 3), or None.
    """
    region = _region(box, coco)
    for _ in range(LOOKS):
        seen = region
        found = blazepose.landmarks(image, seen, network)
        if found.person < IS_PERSON:
            break
        region = found.region()
    return _as_look(image, found, seen, network, coco, box)


def look_at(image: np.ndarray, region: Region, network: str = "blazepose-full") -> Look:
    """A look at a region in which a person is known to be, uint8 (H, W, 3); MoveNet is not asked."""
    return _as_look(image, blazepose.landmarks(image, region, network), region, network)


def _as_look(
    image: np.ndarray,
    found: blazepose.Landmarks,
    seen: Region,
    network: str,
    coco: np.ndarray | None = None,
    box: np.ndarray | None = None,
) -> Look:
    """What BlazePose found in a region `seen`, checked against MoveNet's keypoints in a box, if there are any."""
    sure = found.person >= IS_PERSON
    points, points3d = found.named(DETECTED), np.zeros((len(DETECTED), 3))
    if coco is not None:
        points = _combine(points, coco, found.person, box)
    evidence = found.evidence | {"mirrored": np.zeros_like(found.evidence["inner"])}
    if sure:
        other, place = _mirror_look(image, seen, network)
        points[:, :2], points3d, agreement = _lifted(found, seen, other, place, image.shape[1], coco)
        points[:, 2] *= agreement
        if other.person >= IS_PERSON:
            evidence["mirrored"] = other.evidence["inner"]
    elif coco is None:
        points[:, 2] *= found.person
    height, width = image.shape[:2]
    inside = ((points[:, :2] >= 0) & (points[:, :2] <= [width, height])).all(-1)
    points[:, 2] *= inside
    return Look(points, points3d, found.mask * sure, seen.frame(), found.person, evidence)


def _mirror_look(image: np.ndarray, seen: Region, network: str) -> tuple[blazepose.Landmarks, Region]:
    """A look at the mirror image of the region, and where that lies in the mirror image of the picture."""
    region = Region(image.shape[1] - seen.x, seen.y, seen.side, -seen.angle)
    return blazepose.landmarks(np.ascontiguousarray(image[:, ::-1]), region, network), region


def _lifted(
    found: blazepose.Landmarks, seen: Region, other: blazepose.Landmarks, place: Region, width: int, coco: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The person's keypoints in px (23, 2) and metres (23, 3): means over a look and one at the mirror image, whose errors differ.

    Where the two contradict each other, as when one takes the left leg for the right one, that look alone speaks which is nearer to
    MoveNet's (17, 3), or this one. Also (23,) 1 where both agree, down to 0.5.
    """
    flip, first = list(DETECTED_FLIP), lifter.keypoints(found, seen)
    if other.person < IS_PERSON:
        return *first, np.ones(len(first[0]))
    other2d, other3d = lifter.keypoints(other, place)
    second = other2d[flip] * [-1, 1] + [width, 0], other3d[flip] * [-1, 1, 1]
    agreement = np.exp(-(np.linalg.norm(first[0] - second[0], axis=-1) ** 2) / (AGREE * seen.side) ** 2)
    if coco is not None:
        sure = coco[:, 2] * (1 - agreement[: len(coco)])
        gaps = [np.sum(sure * np.linalg.norm(points[: len(coco)] - coco[:, :2], axis=-1)) for points, _ in (first, second)]
        first, second = (first, second) if gaps[0] <= gaps[1] else (second, first)
    mean2d, mean3d = (a + agreement[:, None] / 2 * (b - a) for a, b in zip(first, second, strict=True))
    return mean2d, mean3d, (1 + agreement) / 2


def _region(box: np.ndarray, coco: np.ndarray | None) -> Region:
    """Where BlazePose shall look first: by MoveNet's hips and shoulders if it is sure of them, else the box, upright."""
    if coco is not None and coco[HIPS, 2].min() > 0.2 and coco[SHOULDERS, 2].min() > 0.2:
        hip, shoulder = coco[HIPS, :2].mean(0), coco[SHOULDERS, :2].mean(0)
        seen = coco[coco[:, 2] > 0.2, :2]
        return blazepose.region_around(hip, shoulder - hip, np.linalg.norm(seen - hip, axis=-1).max())
    return Region(*(box[:2] + box[2:]) / 2, BOX_MARGIN * float((box[2:] - box[:2]).max()), 0.0)


def _combine(points: np.ndarray, coco: np.ndarray, person: float, box: np.ndarray) -> np.ndarray:
    """BlazePose's 23 keypoints, less sure where MoveNet's 17 say something else; MoveNet's alone if BlazePose saw nobody."""
    if person < IS_PERSON:
        return np.concatenate([coco, np.zeros((len(DETECTED) - len(coco), 3))])
    tolerance = 0.1 * np.linalg.norm(box[2:] - box[:2])
    distance = np.linalg.norm(points[: len(coco), :2] - coco[:, :2], axis=-1) / tolerance
    # MoveNet is modest: it scores 0.5 where it is right.
    doubt = np.clip(2 * coco[:, 2], 0, 1) * (1 - np.exp(-(distance**2)))
    points[: len(coco), 2] *= 1 - doubt
    return points

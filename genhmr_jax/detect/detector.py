"""Photo to people: boxes by MoveNet multipose, 23 keypoints each by BlazePose and the lifter.

MoveNet's 17 keypoints check those of BlazePose. Boxes and keypoints of the user replace the
detector's own.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float

from genhmr_jax.detect import blazepose, lifter, movenet
from genhmr_jax.detect.blazepose import Evidence, Region
from genhmr_jax.detect.detections import Detections, enough_keypoints
from genhmr_jax.geometry.keypoints import DETECTED, DETECTED_FLIP, keypoint_bounds

MOST_PEOPLE = 10
"""The most people that the detector returns unless another number is given."""
NETWORK = "blazepose-full"
PASSES = 2  # BlazePose runs again on the region that its first pass asked for
IS_PERSON = 0.5
NEAR_MISS = (
    0.1  # with nobody above the threshold, the best guess above this one counts if BlazePose agrees
)
BOX_MARGIN = 1.25
# sides of the region: two estimates of a keypoint that are farther apart contradict each other
AGREE = 0.05
HIPS, SHOULDERS = [11, 12], [5, 6]  # in COCO's order


@dataclasses.dataclass(frozen=True)
class PoseEstimate:
    """What BlazePose and the lifter estimate of one person.

    Attributes:
      keypoints: (23, 3) px and confidence, see Detections.
      keypoints3d: (23, 3) metres; zero where no person was seen.
      mask: (M, M) and its frame (2, 3), see Detections; the mask is zero where no person was seen.
      frame: (2, 3).
      person: probability that the region shows a person.
      evidence: the outputs of the network, with the inner map of the mirror image.
    """

    keypoints: Float[np.ndarray, "23 3"]
    keypoints3d: Float[np.ndarray, "23 3"]
    mask: Float[np.ndarray, "M M"]
    frame: Float[np.ndarray, "2 3"]
    person: float
    evidence: Evidence


@dataclasses.dataclass(frozen=True)
class FoundPerson:
    """A box xyxy px, its score, and the estimate of the person in it."""

    box: Float[np.ndarray, "4"]
    score: float
    pose: PoseEstimate


def detect(
    image: np.ndarray,
    boxes: np.ndarray | None = None,
    keypoints: np.ndarray | None = None,
    *,
    max_people: int | None = None,
    threshold: float = 0.2,
    network: str = NETWORK,
) -> Detections:
    """The people of a photo and their keypoints.

    Args:
      image: uint8 (H, W, 3), RGB, any size.
      boxes: (P, 4) xyxy px of the user, in place of a search for people. No rows mean that nobody
        is there.
      keypoints: (P, 23, 3) px and confidence of the user, in place of detected ones; with boxes: of
        the same people. Masks, 3D keypoints and features come from the detector, where it sees the
        person.
      max_people: the most people, those of the largest score times box side; None is MOST_PEOPLE of
        the people whom the detector finds, and everybody who is given.
      threshold: least score of MoveNet.
      network: the BlazePose to use, see `graph_runner.load`; the heavy one is slower and more
        exact, tools/build_eyes.py makes it.

    Raises:
      ValueError: what is no image; boxes or keypoints of another shape or not finite; boxes outside
        the image; boxes and keypoints of different numbers of people.
      FileNotFoundError: there is no such network.
    """
    check_image(image)
    if boxes is None and keypoints is None:
        most = MOST_PEOPLE if max_people is None else max_people
        people, left_out = find_people(image, most, threshold, network)
        return dataclasses.replace(_detections(people), left_out=left_out)
    boxes, keypoints = (
        _rows("boxes", boxes, (4,)),
        _rows("keypoints", keypoints, (len(DETECTED), 3)),
    )
    if boxes is not None and keypoints is not None and len(boxes) != len(keypoints):
        problem = f"{len(boxes)} boxes but keypoints of {len(keypoints)} people are given"
        raise ValueError(f"{problem}: one box a person is needed")
    if boxes is None:
        boxes = keypoint_bounds(keypoints)
    chosen = np.arange(len(boxes))
    if max_people is not None and len(boxes) > max_people:
        area = np.prod(boxes[:, 2:] - boxes[:, :2], -1)
        chosen = np.sort(np.argsort(-area, kind="stable")[:max_people])
    left_out = len(boxes) - len(chosen)
    if keypoints is None:
        _check_boxes(image, boxes)
        people = [in_box(image, box, network) for box in boxes[chosen]]
        return dataclasses.replace(_detections(people), given=chosen, left_out=left_out)
    found = _around_keypoints(image, boxes[chosen], keypoints[chosen], network)
    return dataclasses.replace(found, given=chosen, left_out=left_out)


def find_people(
    image: np.ndarray, max_people: int = MOST_PEOPLE, threshold: float = 0.2, network: str = NETWORK
) -> tuple[list[FoundPerson], int]:
    """Searches an image, uint8 (H, W, 3), for people. Returns them, and how many people more there
    are."""
    check_image(image)
    boxes, scores, keypoints = movenet.find_people(image, min(threshold, NEAR_MISS))
    sure = scores >= threshold
    if not sure.any():
        return _doubtful_person(image, boxes, scores, keypoints, network), 0
    boxes, scores, keypoints = boxes[sure], scores[sure], keypoints[sure]
    order = np.argsort(-scores * np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], -1)), kind="stable")
    people = [
        FoundPerson(boxes[i], float(scores[i]), _estimate(image, boxes[i], keypoints[i], network))
        for i in order[:max_people]
    ]
    return people, max(len(order) - max_people, 0)


def in_box(image: np.ndarray, box: np.ndarray, network: str = NETWORK) -> FoundPerson:
    """The person in a box (4,) xyxy px; the score is BlazePose's that there is one."""
    pose = _estimate(image, box, _movenet_in_box(image, box), network)
    return FoundPerson(box, pose.person, pose)


def in_region(image: np.ndarray, region: Region, network: str = NETWORK) -> PoseEstimate:
    """The person in a region, uint8 (H, W, 3), in which one is known to be; MoveNet is not run."""
    return _pose_estimate(image, blazepose.landmarks(image, region, network), region, network)


def check_image(image: np.ndarray) -> None:
    """Refuses what is not an RGB image: ValueError."""
    is_rgb = (
        isinstance(image, np.ndarray)
        and image.dtype == np.uint8
        and image.ndim == 3
        and image.shape[2] == 3
    )
    if not is_rgb or 0 in image.shape:
        found = (
            f"{image.dtype} {image.shape}"
            if isinstance(image, np.ndarray)
            else type(image).__name__
        )
        raise ValueError(f"the image is {found}: uint8 (height, width, 3), RGB, is needed")


def _detections(people: list[FoundPerson]) -> Detections:
    """One row a person, perhaps of nobody."""
    found = Detections.empty(len(people))
    for i, person in enumerate(people):
        found.boxes[i], found.scores[i] = person.box, person.score
        found.keypoints[i], found.keypoints3d[i] = person.pose.keypoints, person.pose.keypoints3d
        found.masks[i], found.mask_frames[i] = person.pose.mask, person.pose.frame
        evidence = person.pose.evidence
        found.regions[i] = evidence.region
        if evidence.inner.size:
            found.features[i] = evidence.inner, evidence.mirrored
    return found


def _around_keypoints(
    image: np.ndarray, boxes: np.ndarray, keypoints: np.ndarray, network: str
) -> Detections:
    """The user's keypoints, with masks, 3D keypoints and features of the detector's own
    estimates."""
    found = dataclasses.replace(Detections.empty(len(boxes)), boxes=boxes, keypoints=keypoints)
    usable = np.flatnonzero(enough_keypoints(keypoints) & _inside(boxes, image))
    own = _detections([in_box(image, box, network) for box in boxes[usable]])
    for name in ("scores", "keypoints3d", "masks", "mask_frames", "features", "regions"):
        getattr(found, name)[usable] = getattr(own, name)
    return found


def _rows(
    name: str, given: np.ndarray | None, shape: tuple[int, ...]
) -> Float[np.ndarray, "P *shape"] | None:
    """What the user gives as float32, one row a person; an empty list is nobody. Raises
    ValueError."""
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
        problem = f"{name} have shape {rows.shape} or are not finite"
        raise ValueError(f"{problem}: ({wanted}) finite numbers are needed, a row a person")
    return rows


def _inside(boxes: Float[np.ndarray, "P 4"], image: np.ndarray) -> Bool[np.ndarray, "P"]:
    """Whether boxes have some area inside the image."""
    inside = np.clip(boxes, 0, np.tile(image.shape[1::-1], 2))
    return (inside[:, 2:] - inside[:, :2] >= 1).all(-1)


def _check_boxes(image: np.ndarray, boxes: np.ndarray) -> None:
    """Raises ValueError for a box without area inside the image."""
    if not _inside(boxes, image).all():
        width, height = image.shape[1::-1]
        problem = f"a box has no area inside the image of {width} x {height} px"
        raise ValueError(f"{problem}: give boxes as x0, y0, x1, y1 in px")


def _doubtful_person(
    image: np.ndarray, boxes: np.ndarray, scores: np.ndarray, keypoints: np.ndarray, network: str
) -> list[FoundPerson]:
    """MoveNet's best near miss, if BlazePose sees a person there."""
    if not len(boxes):
        return []
    pose = _estimate(image, boxes[0], keypoints[0], network)
    return [FoundPerson(boxes[0], float(scores[0]), pose)] if pose.person >= IS_PERSON else []


def _movenet_in_box(image: np.ndarray, box: np.ndarray) -> np.ndarray | None:
    """MoveNet's keypoints (17, 3) in px of the image for the person in a box, or None if it sees
    nobody there."""
    height, width = image.shape[:2]
    margin = (BOX_MARGIN - 1) / 2 * np.tile(box[2:] - box[:2], 2) * [-1, -1, 1, 1]
    x0, y0, x1, y1 = np.clip(np.round(box + margin), 0, [width, height, width, height]).astype(int)
    part = np.ascontiguousarray(image[y0:y1, x0:x1])
    boxes, scores, keypoints = movenet.run(part, movenet.SIZES[0])
    offset = np.array([x0, y0], float)
    overlap = [
        movenet.iou(found + np.tile(offset, 2), box) * (score > NEAR_MISS)
        for found, score in zip(boxes, scores, strict=True)
    ]
    best = int(np.argmax(overlap))
    return keypoints[best] + [*offset, 0] if overlap[best] > 0.3 else None


def _estimate(
    image: np.ndarray, box: np.ndarray, coco: np.ndarray | None, network: str
) -> PoseEstimate:
    """The person of a box; `coco`: MoveNet's keypoints (17, 3), or None."""
    region = _region(box, coco)
    for _ in range(PASSES):
        seen = region
        found = blazepose.landmarks(image, seen, network)
        if found.person < IS_PERSON:
            break
        region = found.region()
    return _pose_estimate(image, found, seen, network, coco, box)


def _pose_estimate(
    image: np.ndarray,
    found: blazepose.Landmarks,
    seen: Region,
    network: str,
    coco: np.ndarray | None = None,
    box: np.ndarray | None = None,
) -> PoseEstimate:
    """What BlazePose found in a region `seen`, checked against MoveNet's keypoints in a box, if
    there are any."""
    sure = found.person >= IS_PERSON
    points, points3d = found.named(DETECTED), np.zeros((len(DETECTED), 3))
    if coco is not None:
        points = _combine(points, coco, found.person, box)
    mirrored = np.zeros_like(found.evidence.inner)
    if sure:
        other, mirror_region = _mirrored(image, seen, network)
        points[:, :2], points3d, agreement = _lifted(
            found, seen, other, mirror_region, image.shape[1], coco
        )
        points[:, 2] *= agreement
        if other.person >= IS_PERSON:
            mirrored = other.evidence.inner
    elif coco is None:
        points[:, 2] *= found.person
    height, width = image.shape[:2]
    inside = ((points[:, :2] >= 0) & (points[:, :2] <= [width, height])).all(-1)
    points[:, 2] *= inside
    evidence = dataclasses.replace(found.evidence, mirrored=mirrored)
    return PoseEstimate(points, points3d, found.mask * sure, seen.frame(), found.person, evidence)


def _mirrored(image: np.ndarray, seen: Region, network: str) -> tuple[blazepose.Landmarks, Region]:
    """What BlazePose finds in the mirror image of the region, and where that region lies in the
    mirror image of the picture."""
    region = Region(image.shape[1] - seen.x, seen.y, seen.side, -seen.angle)
    return blazepose.landmarks(np.ascontiguousarray(image[:, ::-1]), region, network), region


def _lifted(
    found: blazepose.Landmarks,
    seen: Region,
    other: blazepose.Landmarks,
    mirror_region: Region,
    width: int,
    coco: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The person's keypoints in px (23, 2) and metres (23, 3): means of the estimates of the region
    and of its mirror image.

    The errors of the two differ. Where they contradict each other, as when one takes the left leg
    for the right one, the one that is nearer to MoveNet's (17, 3) counts alone, or the first. Also
    (23,) 1 where both agree, down to 0.5.
    """
    flip, first = list(DETECTED_FLIP), lifter.keypoints(found, seen)
    if other.person < IS_PERSON:
        return *first, np.ones(len(first[0]))
    other2d, other3d = lifter.keypoints(other, mirror_region)
    second = other2d[flip] * [-1, 1] + [width, 0], other3d[flip] * [-1, 1, 1]
    gap = np.linalg.norm(first[0] - second[0], axis=-1)
    agreement = np.exp(-(gap**2) / (AGREE * seen.side) ** 2)
    if coco is not None:
        sure = coco[:, 2] * (1 - agreement[: len(coco)])
        gaps = [
            np.sum(sure * np.linalg.norm(points[: len(coco)] - coco[:, :2], axis=-1))
            for points, _ in (first, second)
        ]
        first, second = (first, second) if gaps[0] <= gaps[1] else (second, first)
    mean2d, mean3d = (
        a + agreement[:, None] / 2 * (b - a) for a, b in zip(first, second, strict=True)
    )
    return mean2d, mean3d, (1 + agreement) / 2


def _region(box: np.ndarray, coco: np.ndarray | None) -> Region:
    """BlazePose's first region: by MoveNet's hips and shoulders if it is sure of them, else the
    box, upright."""
    if coco is not None and coco[HIPS, 2].min() > 0.2 and coco[SHOULDERS, 2].min() > 0.2:
        hip, shoulder = coco[HIPS, :2].mean(0), coco[SHOULDERS, :2].mean(0)
        seen = coco[coco[:, 2] > 0.2, :2]
        return blazepose.region_around(
            hip, shoulder - hip, np.linalg.norm(seen - hip, axis=-1).max()
        )
    return Region(*(box[:2] + box[2:]) / 2, BOX_MARGIN * float((box[2:] - box[:2]).max()), 0.0)


def _combine(points: np.ndarray, coco: np.ndarray, person: float, box: np.ndarray) -> np.ndarray:
    """BlazePose's 23 keypoints, less confident where MoveNet's 17 differ; MoveNet's alone if
    BlazePose saw nobody."""
    if person < IS_PERSON:
        return np.concatenate([coco, np.zeros((len(DETECTED) - len(coco), 3))])
    tolerance = 0.1 * np.linalg.norm(box[2:] - box[:2])
    distance = np.linalg.norm(points[: len(coco), :2] - coco[:, :2], axis=-1) / tolerance
    # MoveNet is under-confident: its score is 0.5 where it is right.
    doubt = np.clip(2 * coco[:, 2], 0, 1) * (1 - np.exp(-(distance**2)))
    points[: len(coco), 2] *= 1 - doubt
    return points

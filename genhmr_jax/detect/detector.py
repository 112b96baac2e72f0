"""Detection of people: boxes from MoveNet multipose, 23 keypoints from BlazePose and the lifter.

person.py has the pose of one person, and second_search.py what happens where nobody is found or a
pose is uncertain. Boxes and keypoints of the user replace those of the detector.
"""

import contextlib
import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int

from genhmr_jax.detect import blazepose, lifter, movenet
from genhmr_jax.detect.blazepose import NETWORK, Region
from genhmr_jax.detect.detections import Detections, enough_keypoints
from genhmr_jax.detect.person import BOX_MARGIN, FoundPerson, estimate_in, first_region
from genhmr_jax.detect.pose_estimate import IS_PERSON, PoseEstimate, certainty, pose_estimate
from genhmr_jax.detect.second_search import IN_BOX, NEAR_MISS, search_again, search_in_box
from genhmr_jax.geometry.boxes import box_areas, box_overlap
from genhmr_jax.geometry.keypoints import DETECTED, keypoint_bounds
from genhmr_jax.io import program_store

MOST_PEOPLE = 10
"""Default limit of the number of detected people."""


def detect(
    image: np.ndarray,
    boxes: np.ndarray | None = None,
    keypoints: np.ndarray | None = None,
    *,
    max_people: int | None = None,
    threshold: float = 0.2,
    network: str = NETWORK,
) -> Detections:
    """Detect the people of a photo and their keypoints.

    Args:
      image: uint8 (H, W, 3), RGB, any size.
      boxes: (P, 4) xyxy px of the user, in place of a search for people. No rows mean that there
        are no people.
      keypoints: (P, 23, 3) px and confidence of the user, in place of detected ones; with boxes: of
        the same people. Masks, 3D keypoints and features come from the detector, if it finds the
        person.
      max_people: limit of the number of people. Those with the largest score times box side are
        returned, or the largest boxes of the user. None: MOST_PEOPLE for detected people, no limit
        for given ones.
      threshold: smallest score of MoveNet.
      network: the BlazePose to use, see `graph_runner.load`. The heavy one is slower and more
        accurate; tools/build_eyes.py makes it.

    Raises:
      ValueError: no image; boxes or keypoints of another shape or not finite; boxes outside the
        image; boxes and keypoints of different numbers of people.
      FileNotFoundError: there is no such network.
    """
    check_image(image)
    if boxes is None and keypoints is None:
        most = MOST_PEOPLE if max_people is None else max_people
        people, left_out = find_people(image, most, threshold, network)
        return dataclasses.replace(as_detections(people), left_out=left_out)
    boxes = _rows("boxes", boxes, (4,))
    keypoints = _rows("keypoints", keypoints, (len(DETECTED), 3))
    if boxes is not None and keypoints is not None and len(boxes) != len(keypoints):
        problem = f"{len(boxes)} boxes but keypoints of {len(keypoints)} people are given"
        raise ValueError(f"{problem}: one box for each person is needed")
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
        return dataclasses.replace(as_detections(people), given=chosen, left_out=left_out)
    found = _around_keypoints(image, boxes[chosen], keypoints[chosen], network)
    return dataclasses.replace(found, given=chosen, left_out=left_out)


def preload(network: str = NETWORK, make: bool = False) -> None:
    """Read the stored programs of `detect`; with `make`, compile missing ones.

    The last one that `detect` needs comes first: `detect` begins with the others at the same time.
    """
    if not program_store.in_use():
        return
    with contextlib.suppress(Exception):  # `detect` raises it again
        lifter.preload(make)
        blazepose.preload(network, make)
        movenet.preload()


def find_people(
    image: np.ndarray,
    max_people: int = MOST_PEOPLE,
    threshold: float = 0.2,
    network: str = NETWORK,
    *,
    again: bool = True,
) -> tuple[list[FoundPerson], int]:
    """Search an image, uint8 (H, W, 3), for people.

    Args:
      image: the image.
      max_people: limit of their number.
      threshold: smallest score of MoveNet.
      network: the BlazePose to use.
      again: search a second time for people who are overlooked or uncertain (second_search.py).

    Returns:
      at most `max_people` people, and the number of people beyond them.
    """
    check_image(image)
    people, left_out = _find_upright(image, max_people, threshold, network)
    if again and max_people > 0:
        people = search_again(image, people, threshold, network, alone=not left_out)
        # If there were too many already, new ones may be those who were left out.
        left_out = left_out or max(len(people) - max_people, 0)
        if len(people) > max_people:
            boxes = np.stack([person.box for person in people])
            order = _by_size(boxes, np.array([person.score for person in people]))
            people = [people[i] for i in order]
    return people[:max_people], left_out


def _find_upright(
    image: np.ndarray, max_people: int, threshold: float, network: str
) -> tuple[list[FoundPerson], int]:
    """The people whom MoveNet finds in the image as it is; see find_people."""
    boxes, scores, keypoints = movenet.find_people(image, min(threshold, NEAR_MISS))
    accepted = scores >= threshold
    if not accepted.any():
        return _uncertain_person(image, boxes, scores, keypoints, network), 0
    boxes, scores, keypoints = boxes[accepted], scores[accepted], keypoints[accepted]
    order = _by_size(boxes, scores)
    people = [
        FoundPerson(boxes[i], float(scores[i]), _in_box(image, boxes[i], keypoints[i], network))
        for i in order[:max_people]
    ]
    return people, max(len(order) - max_people, 0)


def _by_size(
    boxes: Float[np.ndarray, "P 4"], scores: Float[np.ndarray, "P"]
) -> Int[np.ndarray, "P"]:
    """Indices of people, those with the largest score times the side of the box first."""
    return np.argsort(-scores * np.sqrt(box_areas(boxes)), kind="stable")


def in_box(image: np.ndarray, box: np.ndarray, network: str = NETWORK) -> FoundPerson:
    """The person in a box (4,) xyxy px; the score is BlazePose's probability of a person."""
    pose = _in_box(image, box, _movenet_in_box(image, box), network)
    return search_in_box(image, FoundPerson(box, pose.person, pose), network)


def in_region(image: np.ndarray, region: Region, network: str = NETWORK) -> PoseEstimate:
    """The person in a region of an image, which must show one; MoveNet is not run."""
    return pose_estimate(image, blazepose.landmarks(image, region, network), region, network)


def check_image(image: np.ndarray) -> None:
    """Raise ValueError if the argument is not an RGB image."""
    is_array = isinstance(image, np.ndarray)
    is_rgb = is_array and image.dtype == np.uint8 and image.ndim == 3 and image.shape[2] == 3
    if not is_rgb or 0 in image.shape:
        found = f"{image.dtype} {image.shape}" if is_array else type(image).__name__
        raise ValueError(f"the image is {found}: uint8 (height, width, 3), RGB, is needed")


def as_detections(people: list[FoundPerson]) -> Detections:
    """Detections with one row for each person; the list may be empty."""
    found = Detections.empty(len(people))
    for i, person in enumerate(people):
        found.boxes[i], found.scores[i] = person.box, person.score
        found.keypoints[i], found.keypoints3d[i] = person.pose.keypoints, person.pose.keypoints3d
        found.masks[i], found.mask_frames[i] = person.pose.mask, person.pose.frame
        found.certainty[i] = certainty(person.pose.uncertainty)
        evidence = person.pose.evidence
        found.regions[i] = evidence.region
        if evidence.inner.size:
            found.features[i] = evidence.inner, evidence.mirrored
    return found


def _around_keypoints(
    image: np.ndarray, boxes: np.ndarray, keypoints: np.ndarray, network: str
) -> Detections:
    """The user's keypoints, with masks, 3D keypoints and features of the detector."""
    found = dataclasses.replace(Detections.empty(len(boxes)), boxes=boxes, keypoints=keypoints)
    usable = np.flatnonzero(enough_keypoints(keypoints) & _inside(boxes, image))
    own = as_detections([in_box(image, box, network) for box in boxes[usable]])
    for name in ("scores", "keypoints3d", "masks", "mask_frames", "features", "regions"):
        getattr(found, name)[usable] = getattr(own, name)
    return found


def _rows(
    name: str, given: np.ndarray | None, shape: tuple[int, ...]
) -> Float[np.ndarray, "P *shape"] | None:
    """The user's boxes or keypoints as float32, one row for each person.

    Raises:
      ValueError: no numbers, another shape, or not finite. An empty list is no error.
    """
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
        raise ValueError(f"{problem}: ({wanted}) finite numbers are needed, one row a person")
    return rows


def _inside(boxes: Float[np.ndarray, "P 4"], image: np.ndarray) -> Bool[np.ndarray, "P"]:
    """Whether boxes have an area inside the image."""
    inside = np.clip(boxes, 0, np.tile(image.shape[1::-1], 2))
    return (inside[:, 2:] - inside[:, :2] >= 1).all(-1)


def _check_boxes(image: np.ndarray, boxes: np.ndarray) -> None:
    """Raise ValueError for a box without area inside the image."""
    if not _inside(boxes, image).all():
        width, height = image.shape[1::-1]
        problem = f"a box has no area inside the image of {width} x {height} px"
        raise ValueError(f"{problem}: give boxes as x0, y0, x1, y1 in px")


def _uncertain_person(
    image: np.ndarray, boxes: np.ndarray, scores: np.ndarray, keypoints: np.ndarray, network: str
) -> list[FoundPerson]:
    """The person of MoveNet's highest score, if BlazePose confirms that there is a person."""
    if not len(boxes):
        return []
    pose = _in_box(image, boxes[0], keypoints[0], network)
    return [FoundPerson(boxes[0], float(scores[0]), pose)] if pose.person >= IS_PERSON else []


def _movenet_in_box(image: np.ndarray, box: np.ndarray) -> np.ndarray | None:
    """MoveNet's keypoints (17, 3) in px of the image for the person in a box.

    None if it finds no person there.
    """
    height, width = image.shape[:2]
    margin = (BOX_MARGIN - 1) / 2 * np.tile(box[2:] - box[:2], 2) * [-1, -1, 1, 1]
    x0, y0, x1, y1 = np.clip(np.round(box + margin), 0, [width, height, width, height]).astype(int)
    part = np.ascontiguousarray(image[y0:y1, x0:x1])
    boxes, scores, keypoints = movenet.run(part, movenet.SIZES[0])
    offset = np.array([x0, y0], float)
    overlap = [
        box_overlap(found + np.tile(offset, 2), box) * (score > NEAR_MISS)
        for found, score in zip(boxes, scores, strict=True)
    ]
    best = int(np.argmax(overlap))
    return keypoints[best] + [*offset, 0] if overlap[best] > IN_BOX else None


def _in_box(
    image: np.ndarray, box: np.ndarray, coco: np.ndarray | None, network: str
) -> PoseEstimate:
    """Estimate the person of a box (4,) xyxy px with MoveNet's keypoints (17, 3), if any."""
    return estimate_in(image, first_region(box, coco), network, coco, box)

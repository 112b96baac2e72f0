"""People of the frames of a clip: detected in some frames, and followed by BlazePose between them.

MoveNet, which searches the whole picture, costs several times as much as BlazePose on the region of
one person. A followed person's region is that of the keypoints in the frame before, as in
MediaPipe's pose tracking (Bazarevsky et al., "BlazePose", 2020, arXiv:2006.10204).
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

from genhmr_jax.detect import blazepose
from genhmr_jax.detect.blazepose import NETWORK, Region
from genhmr_jax.detect.detections import Detections, enough_keypoints
from genhmr_jax.detect.detector import (
    MOST_PEOPLE,
    as_detections,
    check_image,
    find_people,
)
from genhmr_jax.detect.person import FoundPerson
from genhmr_jax.detect.pose_estimate import IS_PERSON, PoseEstimate, pose_estimate
from genhmr_jax.detect.second_search import NEAR_MISS, is_uncertain, merged, shared
from genhmr_jax.detect.tracker import keypoint_similarity
from genhmr_jax.geometry.boxes import box_areas, box_overlap
from genhmr_jax.geometry.keypoints import DETECTED, keypoint_bounds

EVERY = 5
"""Frames from one search of the whole picture to the next."""
SAME_PERSON, AGAIN = 0.8, 0.3
"""Object keypoint similarity from which two estimates in one frame, and estimates in successive
frames, are of one person."""
OVERLAP = 0.2
"""Intersection over union of two people from which the picture is searched in every frame."""
UNSEEN = 0.5
"""Factor of the score of a followed person for each search of the picture without the person."""
# BlazePose runs again if the region that it predicts differs from its own by a shift (share of the
# side), a factor of the side, or a turn (radians).
MOVED, RESIZED, TURNED = 0.12, 1.25, 0.4
MARGINS = (-0.3, 0.5)  # of a box around keypoints, as shares of its sides


class ClipDetector:
    """A detector for the frames of a clip, in order. One instance serves one clip.

    Args:
      every: search the whole picture in every n-th frame, and after each frame in which people
        overlap; 1: in each frame.
      max_people: limit of the number of people; None: MOST_PEOPLE.
      threshold: smallest score of MoveNet.
      network: the BlazePose to use, see `detector.detect`.
    """

    def __init__(
        self,
        every: int = EVERY,
        max_people: int | None = None,
        threshold: float = 0.2,
        network: str = NETWORK,
    ) -> None:
        if every < 1:
            raise ValueError(f"every={every}: at least 1 is needed")
        self.every, self.threshold, self.network = every, threshold, network
        self.max_people = MOST_PEOPLE if max_people is None else max_people
        self.since_search = 0

    def detect(self, pixels: np.ndarray, previous: Detections | None = None) -> Detections:
        """The people of a frame.

        Args:
          pixels: uint8 (H, W, 3), RGB.
          previous: the result for the frame before; None for the first frame, and after a cut.

        Returns:
          all fields as `detector.detect` gives them. The score of a followed person is that of the
          last search which found the person, times UNSEEN for each one since that did not.

        Raises:
          ValueError: no image.
        """
        check_image(pixels)
        # A second search takes a second. It would take most of the time of a clip with empty parts.
        again = previous is None
        previous = Detections.empty(0) if previous is None else previous
        self.since_search += 1
        # A followed region can slide from one person to another who overlaps.
        if self.since_search < self.every and not _crowded(previous.boxes):
            if people := without_twins(self._followed(pixels, previous)):
                return as_detections(people)
        self.since_search = 0
        arguments = pixels, self.max_people, self.threshold, self.network
        found, left_out = find_people(*arguments, again=again)
        found = self._certain(pixels, found, previous)
        # The search overlooks people at times, for example those whom another one half hides.
        again_found, _ = _same_people(previous, found)
        overlooked = previous.only(np.setdiff1d(np.arange(len(previous)), again_found))
        overlooked.scores[:] *= UNSEEN
        overlooked = overlooked.only(overlooked.scores >= NEAR_MISS)
        people = without_twins([*found, *self._followed(pixels, overlooked)])
        if not again and len(previous) and not people:
            # The last one is lost. It may be someone whom only the second search finds.
            people, left_out = find_people(*arguments, again=True)
        if len(people) > self.max_people:
            left_out += len(people) - self.max_people
            # Nobody takes the place of a person of the frame before whom this search has missed.
            _, known = _same_people(previous, people)
            order = sorted(range(len(people)), key=lambda i: i not in known)
            people = [people[i] for i in order]
        return dataclasses.replace(as_detections(people[: self.max_people]), left_out=left_out)

    def _certain(
        self, pixels: np.ndarray, found: list[FoundPerson], previous: Detections
    ) -> list[FoundPerson]:
        """The people of a search; where one is uncertain, following may give the better estimate.

        For example, the search does not know that a person is upside down.
        """
        near = lambda box: any(
            is_uncertain(person.pose) and shared(box, person.box) for person in found
        )
        around = previous.only([i for i, box in enumerate(previous.boxes) if near(box)])
        followed = self._followed(pixels, around)
        return merged(found, [person for person in followed if near(person.box)])

    def _followed(self, pixels: np.ndarray, previous: Detections) -> list[FoundPerson]:
        """The people of the frame before who are still where they are expected."""
        people = []
        for box, score, keypoints in zip(
            previous.boxes, previous.scores, previous.keypoints, strict=True
        ):
            pose = follow(pixels, keypoints, self.network)
            if pose.person >= IS_PERSON and enough_keypoints(pose.keypoints):
                moved = _moved_box(box, keypoints, pose.keypoints, pixels.shape[1::-1])
                people.append(FoundPerson(moved, float(score), pose))
        return people


def follow(
    image: np.ndarray, before: Float[np.ndarray, "23 3"], network: str = NETWORK
) -> PoseEstimate:
    """Find a person again whose keypoints in the frame before are known; MoveNet is not run.

    Args:
      image: uint8 (H, W, 3), RGB.
      before: keypoints in the frame before, px and confidence. They also decide between left and
        right where the estimates of the region and of its mirror image contradict each other.
      network: the BlazePose to use.
    """
    # Where only MoveNet knew the person, keypoints beyond COCO's are missing: they are (0, 0).
    known = before.any(-1)
    names = tuple(name for name, is_known in zip(DETECTED, known, strict=True) if is_known)
    region = blazepose.region_of(before[known, :2], names)
    found = blazepose.landmarks(image, region, network)
    following = found.region()
    if found.person >= IS_PERSON and _differ(region, following):
        region = following
        found = blazepose.landmarks(image, region, network)
    return pose_estimate(image, found, region, network, before=before)


def without_twins(people: list[FoundPerson]) -> list[FoundPerson]:
    """The people without those who are a second estimate of one person, the better one kept.

    Better is the higher score times BlazePose's probability of a person times the mean confidence
    of the keypoints. The order of the others is kept.
    """
    if len(people) < 2:
        return people
    boxes = np.stack([person.box for person in people])
    keypoints = np.stack([person.pose.keypoints for person in people])
    alike = keypoint_similarity(keypoints, keypoints, box_areas(boxes), box_areas(boxes))
    quality = [p.score * p.pose.person * p.pose.keypoints[:, 2].mean() for p in people]
    kept: list[int] = []
    for i in np.argsort(-np.array(quality), kind="stable"):
        if not (alike[i, kept] > SAME_PERSON).any():
            kept.append(int(i))
    return [people[i] for i in sorted(kept)]


def _crowded(boxes: Float[np.ndarray, "P 4"]) -> bool:
    """Whether two of the boxes overlap."""
    return bool((np.triu(box_overlap(boxes[:, None], boxes[None]), 1) > OVERLAP).any())


def _same_people(
    previous: Detections, found: list[FoundPerson]
) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """Numbers of people in the frame before, and of the same ones among those found now."""
    if not len(previous) or not found:
        return np.zeros(0, int), np.zeros(0, int)
    boxes = np.stack([person.box for person in found])
    keypoints = np.stack([person.pose.keypoints for person in found])
    areas = box_areas(previous.boxes), box_areas(boxes)
    alike = keypoint_similarity(previous.keypoints, keypoints, *areas)
    rows, columns = linear_sum_assignment(-alike)
    same = alike[rows, columns] > AGAIN
    return rows[same], columns[same]


def _differ(region: Region, other: Region) -> bool:
    """Whether BlazePose should run again on the other region."""
    moved = np.hypot(other.x - region.x, other.y - region.y) > MOVED * region.side
    resized = abs(np.log(other.side / region.side)) > np.log(RESIZED)
    turn = (other.angle - region.angle + np.pi) % (2 * np.pi) - np.pi
    return bool(moved or resized or abs(turn) > TURNED)


def _moved_box(
    box: np.ndarray, before: np.ndarray, now: np.ndarray, size: tuple[int, int]
) -> Float[np.ndarray, "4"]:
    """The box around a followed person's keypoints, with the margins of the box before.

    Margins are shares of the sides of the keypoints' bounds, within MARGINS.
    """
    old, new = keypoint_bounds(np.stack([before, now])).astype(np.float64)
    sides = np.maximum(old[2:] - old[:2], 1.0)
    margin = np.clip(np.append(old[:2] - box[:2], box[2:] - old[2:]) / np.tile(sides, 2), *MARGINS)
    grown = new + np.tile(new[2:] - new[:2], 2) * margin * [-1, -1, 1, 1]
    return np.clip(grown, 0, np.tile(size, 2))

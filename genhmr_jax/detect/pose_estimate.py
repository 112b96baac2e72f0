"""The pose of one person: BlazePose's region and its mirror image, the lifter, and MoveNet."""

import dataclasses

import numpy as np
from jaxtyping import Float

from genhmr_jax.detect import blazepose, lifter
from genhmr_jax.detect.blazepose import Evidence, Region
from genhmr_jax.geometry.keypoints import DETECTED, DETECTED_FLIP

IS_PERSON = 0.5  # BlazePose's probability from which a region counts as a person
# Sides of the region: two estimates of a keypoint at a larger distance contradict each other.
AGREE = 0.05
NOBODY_ERROR = 0.25
"""Expected error, as a share of the person's size, of an estimate in a region without a person."""
CERTAIN, LEAST_CERTAINTY = 0.015, 0.02
"""The largest uncertainty of a person whose certainty is 1, and the smallest certainty."""


@dataclasses.dataclass(frozen=True)
class PoseEstimate:
    """The estimates of BlazePose and the lifter for one person.

    Attributes:
      keypoints: (23, 3) px and confidence, see Detections.
      keypoints3d: (23, 3) metres; zero if no person was found in the region.
      mask: (M, M), see Detections; zero if no person was found in the region.
      frame: (2, 3) location of the mask, see Detections.
      person: probability that the region shows a person.
      evidence: the outputs of the network, with the inner map of the mirror image.
      uncertainty: expected 2D error of a keypoint, as a share of the person's size: the geometric
        mean of those of the region and of its mirror image, NOBODY_ERROR where nobody is found.
    """

    keypoints: Float[np.ndarray, "23 3"]
    keypoints3d: Float[np.ndarray, "23 3"]
    mask: Float[np.ndarray, "M M"]
    frame: Float[np.ndarray, "2 3"]
    person: float
    evidence: Evidence
    uncertainty: float


def pose_estimate(
    image: np.ndarray,
    found: blazepose.Landmarks,
    region: Region,
    network: str,
    coco: np.ndarray | None = None,
    box: np.ndarray | None = None,
    before: np.ndarray | None = None,
) -> PoseEstimate:
    """Combine BlazePose's landmarks of a region, the lifter, and MoveNet's keypoints if any.

    `before` (23, 3), the keypoints in the frame before, replaces MoveNet's where the estimates of
    the region and of its mirror image contradict each other.
    """
    # 1. The lifter's keypoints, from the region and its mirror image. They have less confidence
    # where MoveNet's differ from BlazePose's own.
    is_person = found.person >= IS_PERSON
    points, points3d = found.named(DETECTED), np.zeros((len(DETECTED), 3))
    mirrored, uncertainty = np.zeros_like(found.evidence.inner), NOBODY_ERROR
    if is_person:
        trust = np.ones(len(points)) if coco is None else _trust(points, coco, box)
        other, mirror_region = mirror_image(image, region, network)
        known = before if coco is None else coco
        arguments = found, region, other, mirror_region, image.shape[1], known
        points[:, :2], points3d, agreement, uncertainty = lifted(*arguments)
        points[:, 2] *= trust * agreement
        if other.person >= IS_PERSON:
            mirrored = other.evidence.inner
    # 2. Without a person they are MoveNet's, if there are any.
    elif coco is not None:
        points = np.concatenate([coco, np.zeros((len(DETECTED) - len(coco), 3))])
    else:
        points[:, 2] *= found.person
    # 3. Keypoints outside the image have no confidence.
    height, width = image.shape[:2]
    inside = ((points[:, :2] >= 0) & (points[:, :2] <= [width, height])).all(-1)
    points[:, 2] *= inside
    evidence = dataclasses.replace(found.evidence, mirrored=mirrored)
    mask = found.mask * is_person
    where = mask, region.frame(), found.person, evidence
    return PoseEstimate(points, points3d, *where, uncertainty)


def certainty(uncertainty: Float[np.ndarray, "*P"]) -> Float[np.ndarray, "*P"]:
    """How much the evidence of a person counts in the refinement, from LEAST_CERTAINTY to 1.

    It falls with the square of the uncertainty (PoseEstimate), as the weight of a measurement does.
    """
    return np.clip((CERTAIN / np.maximum(uncertainty, 1e-6)) ** 2, LEAST_CERTAINTY, 1)


def mirror_image(
    image: np.ndarray, region: Region, network: str
) -> tuple[blazepose.Landmarks, Region]:
    """BlazePose's landmarks of the mirrored region, and this region in the mirrored picture."""
    mirror_region = Region(image.shape[1] - region.x, region.y, region.side, -region.angle)
    picture = np.ascontiguousarray(image[:, ::-1])
    return blazepose.landmarks(picture, mirror_region, network), mirror_region


def lifted(
    found: blazepose.Landmarks,
    region: Region,
    other: blazepose.Landmarks,
    mirror_region: Region,
    width: int,
    coco: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """The lifter's keypoints, as means of the region's estimate and its mirror image's.

    The errors of the two estimates differ. If they contradict each other, for example because one
    confuses the left and the right leg, only one of them counts: the one that is closer to
    MoveNet's keypoints `coco` (17, 3), or without these the one whose expected errors are smaller.

    Returns:
      keypoints in px (23, 2) and in metres (23, 3); their agreement (23,): from 0.5 to 1; and
      the uncertainty, see PoseEstimate.
    """
    # 1. Both estimates, in the axes of the picture.
    flip, first = list(DETECTED_FLIP), lifter.estimates(found, region)
    if other.person < IS_PERSON:
        return first[0], first[1], np.ones(len(first[0])), _uncertainty([first], region.side)
    other2d, other3d, other_spread = lifter.estimates(other, mirror_region)
    second = other2d[flip] * [-1, 1] + [width, 0], other3d[flip] * [-1, 1, 1], other_spread[flip]
    # 2. Their agreement, and which one counts where they contradict each other.
    gap = np.linalg.norm(first[0] - second[0], axis=-1)
    agreement = np.exp(-(gap**2) / (AGREE * region.side) ** 2)
    if coco is not None:
        weight = coco[:, 2] * (1 - agreement[: len(coco)])
        gaps = [
            np.sum(weight * np.linalg.norm(points[: len(coco)] - coco[:, :2], axis=-1))
            for points, *_ in (first, second)
        ]
    else:
        gaps = [spread.mean() for *_, spread in (first, second)]
    first, second = (first, second) if gaps[0] <= gaps[1] else (second, first)
    # 3. The mean of both where they agree, weighted by their variances, and the first one where
    # they do not.
    share = agreement * first[2] ** 2 / (first[2] ** 2 + second[2] ** 2)
    mean = lambda a, b: a + share[:, None] * (b - a)
    points, points3d = mean(first[0], second[0]), mean(first[1], second[1])
    return points, points3d, (1 + agreement) / 2, _uncertainty([first, second], region.side)


def _uncertainty(looks: list[tuple[np.ndarray, np.ndarray, np.ndarray]], side: float) -> float:
    """The uncertainty of one or two of lifter.estimates in regions of a side in px."""
    errors = [side * spread.mean() / np.ptp(points, axis=0).max() for points, _, spread in looks]
    return float(np.exp(np.mean(np.log([*errors, NOBODY_ERROR][:2]))))


def _trust(
    points: Float[np.ndarray, "23 3"], coco: Float[np.ndarray, "17 3"], box: Float[np.ndarray, "4"]
) -> Float[np.ndarray, "23"]:
    """Factors of the confidences: less than 1 where MoveNet's keypoints contradict BlazePose's."""
    tolerance = 0.1 * np.linalg.norm(box[2:] - box[:2])
    distance = np.linalg.norm(points[: len(coco), :2] - coco[:, :2], axis=-1) / tolerance
    # MoveNet is under-confident: the score of a correct keypoint is 0.5.
    contradiction = np.clip(2 * coco[:, 2], 0, 1) * (1 - np.exp(-(distance**2)))
    return np.concatenate([1 - contradiction, np.ones(len(points) - len(coco))])

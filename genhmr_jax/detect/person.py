"""One person: from the first region of BlazePose to the estimate of the pose (pose_estimate.py)."""

import dataclasses

import numpy as np
from jaxtyping import Float
from smpl_jax.keypoints import COCO17

from genhmr_jax.detect import blazepose
from genhmr_jax.detect.blazepose import Region
from genhmr_jax.detect.pose_estimate import IS_PERSON, PoseEstimate, pose_estimate

PASSES = 2  # BlazePose runs again on the region that its first pass predicts
BOX_MARGIN = 1.25
HIPS = [COCO17.index("left_hip"), COCO17.index("right_hip")]
SHOULDERS = [COCO17.index("left_shoulder"), COCO17.index("right_shoulder")]


@dataclasses.dataclass(frozen=True)
class FoundPerson:
    """A box xyxy px, its score, and the estimate of the person in it."""

    box: Float[np.ndarray, "4"]
    score: float
    pose: PoseEstimate


def estimate_in(
    image: np.ndarray,
    start: Region,
    network: str,
    coco: np.ndarray | None = None,
    box: np.ndarray | None = None,
) -> PoseEstimate:
    """Estimate the person of a region, which BlazePose itself corrects.

    Args:
      image: uint8 (H, W, 3).
      start: the first region.
      network: the BlazePose to use.
      coco: MoveNet's keypoints (17, 3), if known.
      box: (4,) xyxy px of the person; with `coco`.
    """
    following = start
    for _ in range(PASSES):
        region = following
        found = blazepose.landmarks(image, region, network)
        if found.person < IS_PERSON:
            break
        following = found.region()
    return pose_estimate(image, found, region, network, coco, box)


def first_region(box: np.ndarray, coco: np.ndarray | None, angle: float = 0.0) -> Region:
    """BlazePose's first region: from MoveNet's hips and shoulders if their score is above 0.2.

    Otherwise it is the box, for a person who is turned clockwise by `angle`, radians.
    """
    if coco is not None and coco[HIPS, 2].min() > 0.2 and coco[SHOULDERS, 2].min() > 0.2:
        hip, shoulder = coco[HIPS, :2].mean(0), coco[SHOULDERS, :2].mean(0)
        radius = np.linalg.norm(coco[coco[:, 2] > 0.2, :2] - hip, axis=-1).max()
        return blazepose.region_around(hip, shoulder - hip, radius)
    return Region(*(box[:2] + box[2:]) / 2, BOX_MARGIN * float((box[2:] - box[:2]).max()), angle)

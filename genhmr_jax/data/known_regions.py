"""Regions of rendered people, whose keypoints are known: with errors like those of a detector."""

import numpy as np
from jaxtyping import Float

from genhmr_jax.detect import blazepose
from genhmr_jax.geometry.keypoints import DETECTED

# Error of the detector's region against that of the true keypoints, measured on rendered people:
# shift in sides, logarithm of the side, angle in radians.
REGION_MEAN = np.array([0.0, 0.003, -0.025, 0.0])
REGION_DEVIATION = np.array([0.012, 0.015, 0.06, 0.055])


def known_region(
    keypoints: Float[np.ndarray, "23 2"], rng: np.random.Generator
) -> blazepose.Region:
    """The region around true keypoints, px, moved at random."""
    x, y, log_side, angle = REGION_MEAN + REGION_DEVIATION * rng.standard_normal(4)
    region = blazepose.region_of(keypoints, DETECTED)
    middle = region.to_image(blazepose.SIZE * (0.5 + np.array([x, y])))
    return blazepose.Region(*middle, region.side * np.exp(log_side), region.angle + angle)

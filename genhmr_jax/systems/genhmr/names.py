"""The form of a body for feedback, and other names of its keypoints.

A detector mixes up left and right. A model with feedback therefore tries other names for the
detected keypoints.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from genhmr_jax.core.confidence import NEAR
from genhmr_jax.core.feedback import DetectedKeypoints, Form
from genhmr_jax.geometry.keypoints import DETECTED, DETECTED_FLIP
from genhmr_jax.geometry.mean_pose import MEAN_POSE_72

BODY_FORM = Form(
    keypoints=tuple(DETECTED),
    roots=("left_hip", "right_hip"),
    mean_pose=tuple(float(angle) for angle in MEAN_POSE_72),  # upright, facing the camera
    size=1.0,
    spread=0.3,
    near=(0.05, NEAR),
)
_LEGS = [i for i, n in enumerate(DETECTED) if n.split("_")[-1] in ("knee", "ankle", "toe", "heel")]


def _assignments() -> np.ndarray:
    legs = np.arange(len(DETECTED))
    legs[_LEGS] = np.array(DETECTED_FLIP)[_LEGS]
    return np.stack([np.arange(len(DETECTED)), np.array(DETECTED_FLIP), legs])


ASSIGNMENTS = _assignments()
"""(3, K) names of the keypoints: as detected, left and right swapped, and only below the hips."""


def reassigned(detected: DetectedKeypoints, assignment: Int[Array, "B"]) -> DetectedKeypoints:
    """The same points under other names: for each row one of ASSIGNMENTS."""
    if not detected.keypoints.shape[1]:
        return detected
    index = jnp.asarray(ASSIGNMENTS)[assignment][..., None]
    take = lambda x: jnp.take_along_axis(x, index, 1)
    keypoints, keypoints3d = take(detected.keypoints), take(detected.keypoints3d)
    return dataclasses.replace(detected, keypoints=keypoints, keypoints3d=keypoints3d)

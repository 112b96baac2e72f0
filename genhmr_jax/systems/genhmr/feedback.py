"""The estimate of a sampling step, and its distance from the detected keypoints.

Between two steps of sampling the current tokens are decoded to a body. Its keypoints are projected
and compared with the detected ones (as in PyMAF, Zhang et al. 2021, and HMR's iterative regression,
Kanazawa et al. 2018), and its joints are the points at which the next step looks into the image.

All quantities are in the axes of the network's inputs: upright for an upright encoder.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import smpl_jax
from jaxtyping import Array, Float, Int
from smpl_jax import rotations

from genhmr_jax.core.sizes import TokenizerSpec
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.geometry.keypoints import DETECTED, DETECTED_FLIP, keypoint_points
from genhmr_jax.geometry.mean_pose import MEAN_POSE_72

KEYPOINT3D_SCALE = 0.3
"""Metres: keypoints in 3D are divided by this, about their standard deviation."""
MEAN_SCALE = 0.85
"""Scale s of the weak camera of the first estimate, about the mean of people in their crops."""
FARTHEST = 3.0
"""Half sides of the crop: networks get projected points clipped there."""
_HIPS = [DETECTED.index("left_hip"), DETECTED.index("right_hip")]
_LEGS = [i for i, n in enumerate(DETECTED) if n.split("_")[-1] in ("knee", "ankle", "toe", "heel")]


def _assignments() -> np.ndarray:
    legs = np.arange(len(DETECTED))
    legs[_LEGS] = np.array(DETECTED_FLIP)[_LEGS]
    return np.stack([np.arange(len(DETECTED)), np.array(DETECTED_FLIP), legs])


ASSIGNMENTS = _assignments()
"""(3, K) names of the keypoints: as detected, left and right swapped, and only below the hips."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DetectedKeypoints:
    """The detected keypoints of B people, in the axes of the network.

    Attributes:
      view: the camera, whose crop is the network's.
      keypoints: (B, K, 3) crop coordinates and confidence, of `normalize_keypoints`; K may be 0.
      keypoints3d: (B, K, 3) metres from mid-hip; all zero: not known.
    """

    view: CropCamera
    keypoints: Float[Array, "B K 3"]
    keypoints3d: Float[Array, "B 23 3"]

    def flat(self) -> Float[Array, "B I"]:
        """All of it as the input of a network; a last flag is 1 where 3D keypoints are known."""
        rows = self.keypoints.shape[0]
        lifted = self.keypoints3d / KEYPOINT3D_SCALE
        known = jnp.any(lifted != 0, (1, 2))[:, None].astype(lifted.dtype)
        parts = [self.keypoints.reshape(rows, -1), self.view.box_information()]
        return jnp.concatenate([*parts, lifted.reshape(rows, -1), known], -1)

    def reassigned(self, assignment: Int[Array, "B"]) -> "DetectedKeypoints":
        """The same points under other names: for each row one of ASSIGNMENTS."""
        if not self.keypoints.shape[1]:
            return self
        index = jnp.asarray(ASSIGNMENTS)[assignment][..., None]
        take = lambda x: jnp.take_along_axis(x, index, 1)
        keypoints, keypoints3d = take(self.keypoints), take(self.keypoints3d)
        return dataclasses.replace(self, keypoints=keypoints, keypoints3d=keypoints3d)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Estimate:
    """The bodies of B people after a step.

    Attributes:
      rotmats: (B, 24, 3, 3) joint rotations.
      betas: (B, 10) shape.
      camera: (B, 3) log(s / MEAN_SCALE), tx, ty of the weak camera.
      joints: (B, 24, 3) metres from the model origin.
      joints2d: (B, 24, 2) crop coordinates.
      points2d: (B, 23, 2) projected DETECTED keypoints, crop coordinates.
      points3d: (B, 23, 3) the same keypoints, metres from mid-hip.
      step: (B,) number of steps that led to it.
    """

    rotmats: Float[Array, "B 24 3 3"]
    betas: Float[Array, "B 10"]
    camera: Float[Array, "B 3"]
    joints: Float[Array, "B 24 3"]
    joints2d: Float[Array, "B 24 2"]
    points2d: Float[Array, "B 23 2"]
    points3d: Float[Array, "B 23 3"]
    step: Int[Array, "B"]

    @property
    def weak_camera(self) -> Float[Array, "B 3"]:
        """s, tx, ty in the crop of the network's view."""
        scale = MEAN_SCALE * jnp.exp(jnp.clip(self.camera[:, :1], -3.0, 3.0))
        return jnp.concatenate([scale, self.camera[:, 1:]], -1)

    def flat(self) -> Float[Array, "B 157"]:
        """Rotations, shape and camera as the input of a network."""
        rows = self.betas.shape[0]
        rot6d = rotations.matrix_to_rot6d(self.rotmats, "rows").reshape(rows, -1)
        return jnp.concatenate([rot6d, self.betas, self.camera], -1)

    def gaps(self, detected: DetectedKeypoints) -> Float[Array, "B G"]:
        """Distances of its keypoints from the detected ones in 2D and 3D, the input of a network.

        They are 0 where a keypoint is not detected.
        """
        rows, count, seen = *detected.keypoints.shape[:2], detected.keypoints[..., 2:] > 0
        points = jnp.clip(self.points2d[:, :count], -FARTHEST, FARTHEST)
        in2d = jnp.where(seen, points - detected.keypoints[..., :2], 0.0)
        known = jnp.any(detected.keypoints3d != 0, (1, 2), keepdims=True)
        in3d = (
            jnp.where(known, self.points3d[:, :count] - detected.keypoints3d, 0.0)
            / KEYPOINT3D_SCALE
        )
        return jnp.concatenate([3.0 * in2d.reshape(rows, -1), in3d.reshape(rows, -1)], -1)


def pose_and_project(
    body: smpl_jax.SmplModel,
    view: CropCamera,
    rotmats: Float[Array, "B 24 3 3"],
    betas: Float[Array, "B 10"],
    camera: Float[Array, "B 3"],
    step: Int[Array, "B"],
) -> Estimate:
    """Pose and project bodies.

    Args:
      body: a keypoint model.
      view: the camera of the network.
      rotmats, betas, camera, step: see Estimate.
    """
    estimate = Estimate(rotmats, betas, camera, *[jnp.zeros(())] * 4, step)
    output = smpl_jax.forward(body, betas, rotmats)
    points = keypoint_points(body, output, DETECTED)
    translation = view.translation(estimate.weak_camera)[:, None]
    both = jnp.concatenate([output.joints, points], 1) + translation
    pixels = view.to_crop(view.project(both))
    hips = points[:, _HIPS]
    return dataclasses.replace(
        estimate,
        joints=output.joints,
        joints2d=pixels[:, :24],
        points2d=pixels[:, 24:],
        points3d=points - jnp.mean(hips, 1, keepdims=True),
    )


def mean_pose(rows: int) -> Float[Array, "B 24 3 3"]:
    """The rotations before the first step: upright, facing the camera."""
    pose = rotations.axis_angle_to_matrix(jnp.asarray(MEAN_POSE_72).reshape(24, 3))
    return jnp.broadcast_to(pose, (rows, 24, 3, 3))


def joints_of_tokens(spec: TokenizerSpec) -> np.ndarray:
    """(L,) the joint whose location is the reference point of each token in the image.

    The tokens of a body part are spread over its joints; those of a convolutional tokenizer over
    all joints, in their order.
    """
    parts = spec.independent_parts
    if parts is None:
        return np.arange(spec.length) * 24 // spec.length
    found = np.zeros(spec.length, int)
    for joints, tokens in parts:
        chosen = np.linspace(0, len(joints) - 1, len(tokens)).round().astype(int)
        found[list(tokens)] = np.array(joints)[chosen]
    return found


def confidence_of_tokens(
    spec: TokenizerSpec, confidence: Float[Array, "B 24"]
) -> Float[Array, "B L"]:
    """The mean confidence of the joints that a token determines."""
    parts = spec.independent_parts
    if parts is None:
        return confidence[:, joints_of_tokens(spec)]
    share = np.zeros((24, spec.length), np.float32)
    for joints, tokens in parts:
        share[np.ix_(joints, tokens)] = 1 / len(joints)
    return confidence @ share

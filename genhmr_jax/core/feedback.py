"""The estimate of a sampling step, and its distance from the detected keypoints.

Between two steps of sampling the current tokens are decoded to a mesh, of a body or of a hand. Its
keypoints are projected and compared with the detected ones (as in PyMAF, Zhang et al. 2021, and
HMR's iterative regression, Kanazawa et al. 2018), and its joints are the points at which the next
step looks into the image.

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
from genhmr_jax.geometry.keypoints import keypoint_points

MEAN_SCALE = 0.85
"""Scale s of the weak camera of the first estimate in units of Form.size, about the mean of people
and of hands in their crops."""
FARTHEST = 3.0
"""Half sides of the crop: networks get projected points clipped there."""


@dataclasses.dataclass(frozen=True)
class Form:
    """What is estimated: a body or a hand.

    Attributes:
      keypoints: names of the detected keypoints.
      roots: those whose middle is the origin of keypoints in 3D.
      mean_pose: axis-angles of the first estimate, radians, joint by joint.
      size: metres, the unit of the camera and of errors: about half of its extent.
      spread: metres, by which keypoints in 3D are divided: about their standard deviation.
      near: metres: distances of a joint from the truth within which `Scorer` gives the probability.
    """

    keypoints: tuple[str, ...]
    roots: tuple[str, ...]
    mean_pose: tuple[float, ...]
    size: float
    spread: float
    near: tuple[float, float]

    @property
    def joints(self) -> int:
        """Number of joints, J."""
        return len(self.mean_pose) // 3

    def first_pose(self, rows: int) -> Float[Array, "B J 3 3"]:
        """The rotations before the first step: `mean_pose`."""
        pose = rotations.axis_angle_to_matrix(jnp.array(self.mean_pose).reshape(-1, 3))
        return jnp.broadcast_to(pose, (rows, self.joints, 3, 3))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DetectedKeypoints:
    """The detected keypoints of B people or hands, in the axes of the network.

    Attributes:
      view: the camera, whose crop is the network's.
      keypoints: (B, K, 3) crop coordinates and confidence, of `normalize_keypoints`; K may be 0.
      keypoints3d: (B, K, 3) metres from the root (mid-hip or wrist); all zero: not known.
    """

    view: CropCamera
    keypoints: Float[Array, "B K 3"]
    keypoints3d: Float[Array, "B K 3"]

    def flat(self, form: Form) -> Float[Array, "B I"]:
        """All of it as the input of a network; a last flag is 1 where 3D keypoints are known."""
        rows = self.keypoints.shape[0]
        lifted = self.keypoints3d / form.spread
        known = jnp.any(lifted != 0, (1, 2))[:, None].astype(lifted.dtype)
        parts = [self.keypoints.reshape(rows, -1), self.view.box_information()]
        return jnp.concatenate([*parts, lifted.reshape(rows, -1), known], -1)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Estimate:
    """The meshes of B people or hands after a step.

    Attributes:
      rotmats: (B, J, 3, 3) joint rotations.
      betas: (B, 10) shape.
      camera: (B, 3) log(s / MEAN_SCALE), tx, ty of the weak camera, in units of Form.size.
      weak_camera: (B, 3) s, tx, ty in the crop of the network's view.
      joints: (B, J, 3) metres from the model origin.
      joints2d: (B, J, 2) crop coordinates.
      points2d: (B, K, 2) projected keypoints, crop coordinates.
      points3d: (B, K, 3) the same keypoints, metres from their root.
      step: (B,) number of steps that led to it.
    """

    rotmats: Float[Array, "B J 3 3"]
    betas: Float[Array, "B 10"]
    camera: Float[Array, "B 3"]
    weak_camera: Float[Array, "B 3"]
    joints: Float[Array, "B J 3"]
    joints2d: Float[Array, "B J 2"]
    points2d: Float[Array, "B K 2"]
    points3d: Float[Array, "B K 3"]
    step: Int[Array, "B"]

    def flat(self) -> Float[Array, "B 6J+13"]:
        """Rotations, shape and camera as the input of a network."""
        rows = self.betas.shape[0]
        rot6d = rotations.matrix_to_rot6d(self.rotmats, "rows").reshape(rows, -1)
        return jnp.concatenate([rot6d, self.betas, self.camera], -1)

    def gaps(self, detected: DetectedKeypoints, form: Form) -> Float[Array, "B G"]:
        """Distances of its keypoints from the detected ones in 2D and 3D, the input of a network.

        They are 0 where a keypoint is not detected.
        """
        rows, count, seen = *detected.keypoints.shape[:2], detected.keypoints[..., 2:] > 0
        points = jnp.clip(self.points2d[:, :count], -FARTHEST, FARTHEST)
        in2d = jnp.where(seen, points - detected.keypoints[..., :2], 0.0)
        known = jnp.any(detected.keypoints3d != 0, (1, 2), keepdims=True)
        in3d = jnp.where(known, self.points3d[:, :count] - detected.keypoints3d, 0.0) / form.spread
        return jnp.concatenate([3.0 * in2d.reshape(rows, -1), in3d.reshape(rows, -1)], -1)


def camera_of(weak_camera: Float[Array, "B 3"], form: Form) -> Float[Array, "B 3"]:
    """The field `camera` of an estimate with this weak camera."""
    scale = jnp.log(weak_camera[:, :1] * form.size / MEAN_SCALE)
    return jnp.concatenate([scale, weak_camera[:, 1:] / form.size], -1)


def pose_and_project(
    body: smpl_jax.SmplModel,
    form: Form,
    view: CropCamera,
    rotmats: Float[Array, "B J 3 3"],
    betas: Float[Array, "B 10"],
    camera: Float[Array, "B 3"],
    step: Int[Array, "B"],
) -> Estimate:
    """Pose and project meshes.

    Args:
      body: a keypoint model of a body or hand, of this form.
      view: the camera of the network.
      rotmats, betas, camera, step: see Estimate.
    """
    output = smpl_jax.forward(body, betas, rotmats)
    points = keypoint_points(body, output, form.keypoints)
    scale = MEAN_SCALE / form.size * jnp.exp(jnp.clip(camera[:, :1], -3.0, 3.0))
    weak_camera = jnp.concatenate([scale, form.size * camera[:, 1:]], -1)
    both = jnp.concatenate([output.joints, points], 1) + view.translation(weak_camera)[:, None]
    pixels = view.to_crop(view.project(both))
    roots = points[:, [form.keypoints.index(name) for name in form.roots]]
    return Estimate(
        rotmats=rotmats,
        betas=betas,
        camera=camera,
        weak_camera=weak_camera,
        joints=output.joints,
        joints2d=pixels[:, : form.joints],
        points2d=pixels[:, form.joints :],
        points3d=points - jnp.mean(roots, 1, keepdims=True),
        step=step,
    )


def joints_of_tokens(spec: TokenizerSpec) -> np.ndarray:
    """(L,) the joint whose location is the reference point of each token in the image.

    The tokens of a part are spread over its joints; those of a convolutional tokenizer over all
    joints, in their order.
    """
    parts = spec.independent_parts
    if parts is None:
        return np.arange(spec.length) * spec.joints // spec.length
    found = np.zeros(spec.length, int)
    for joints, tokens in parts:
        chosen = np.linspace(0, len(joints) - 1, len(tokens)).round().astype(int)
        found[list(tokens)] = np.array(joints)[chosen]
    return found


def confidence_of_tokens(
    spec: TokenizerSpec, confidence: Float[Array, "B J"]
) -> Float[Array, "B L"]:
    """The mean confidence of the joints that a token determines."""
    parts = spec.independent_parts
    if parts is None:
        return confidence[:, joints_of_tokens(spec)]
    share = np.zeros((spec.joints, spec.length), np.float32)
    for joints, tokens in parts:
        share[np.ix_(joints, tokens)] = 1 / len(joints)
    return confidence @ share

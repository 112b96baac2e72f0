"""Simulated views of people, on the device: noisy 2D keypoints with exact labels, from poses.

They are the training input of the masked transformer without images, with a model of a 2D
detector's errors: jitter, outliers, left/right swaps, missing keypoints, occlusion and truncation
by the image border. Pure functions of (pose, key); one key per sample.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import smpl_jax
from jaxtyping import Array, Float, Int
from smpl_jax import rotations
from smpl_jax.keypoints import flip_rotmats

from genhmr_jax.data.draws import Draws
from genhmr_jax.data.rows import Rows
from genhmr_jax.geometry import camera
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.geometry.keypoints import DETECTED, DETECTED_FLIP, keypoint_points

TO_CAMERA = np.diag(np.float32([1, -1, -1]))
"""From y up, z towards the viewer, to y down, z away from the camera."""


@dataclasses.dataclass(frozen=True)
class Framing:
    """Where a camera sees a body, for `place`."""

    focal_low: float = 0.7  # focal length over the image diagonal, log-uniform
    focal_high: float = 3.0
    height_low: float = 0.25  # extent over that of the image, log-uniform
    height_high: float = 0.95
    off_centre: float = 0.25


@dataclasses.dataclass(frozen=True)
class ViewSpec(Framing):
    """How views are sampled. Noise in px is given in crop sides; angles in radians."""

    mirror: float = 0.5
    tilt_pitch: float = 0.15
    tilt_roll: float = 0.08
    # share of samples with a uniform root rotation (handstands, people lying, unusual cameras)
    free_rotation: float = 0.06
    pose_noise: float = 0.03  # radians, added to each body joint
    betas: float = 1.0
    jitter_low: float = 0.003
    jitter_high: float = 0.02
    outlier: float = 0.01
    outlier_size: float = 0.1
    swap: float = 0.05  # whole-body swap of left and right; half as often of arms or legs alone
    drop: float = 0.03
    drop_face: float = 0.1
    occlude: float = 0.3
    truncate: float = 0.2
    crop_jitter: float = 0.08
    hide_feet_hands: float = 0.1  # as by detectors of the COCO 17
    # error of 3D keypoints over the distance from mid-hip, across the view; twice that in depth
    lift_noise: float = 0.1
    lift_turn: float = 0.12  # radians, rotation of all 3D keypoints
    lift_unknown: float = 0.15  # share of samples without 3D keypoints


_LEGS = tuple(
    i for i, n in enumerate(DETECTED) if any(w in n for w in ("knee", "ankle", "toe", "heel"))
)
_ARMS = tuple(i for i, n in enumerate(DETECTED) if any(w in n for w in ("elbow", "wrist", "index")))
_FACE = tuple(i for i, n in enumerate(DETECTED) if any(w in n for w in ("nose", "eye", "ear")))
HIPS = tuple(i for i, n in enumerate(DETECTED) if n.endswith("hip"))


def _limb(index: int, name: str) -> int:
    """The group of a keypoint; the 3D errors of a group are correlated."""
    if index in _FACE:
        return 0
    if "shoulder" in name or "hip" in name:
        return 1
    return 2 + ("right" in name) + 2 * (index in _LEGS)


_LIMBS = tuple(_limb(i, n) for i, n in enumerate(DETECTED))


def random_rotation(draws: Draws) -> Float[Array, "3 3"]:
    """A rotation matrix, uniform over SO(3)."""
    q = draws.normal((4,))
    return rotations.quaternion_to_matrix(q / jnp.linalg.norm(q))


def augment_pose(
    pose: Float[Array, "72"], key: jax.Array, spec: ViewSpec
) -> Float[Array, "24 3 3"]:
    """Rotation matrices, in camera coordinates, of a corpus pose (y up) that is changed at random.

    The pose is mirrored or not, turned and tilted, with noise in the joints.
    """
    draws = Draws(key)
    noise = spec.pose_noise * draws.normal((23, 3))
    rotmats = rotations.axis_angle_to_matrix(pose.reshape(24, 3))
    rotmats = rotmats.at[1:].set(rotmats[1:] @ rotations.axis_angle_to_matrix(noise))
    rotmats = jnp.where(draws.flag(spec.mirror), flip_rotmats(rotmats), rotmats)
    yaw = draws.uniform((), -jnp.pi, jnp.pi)
    pitch = spec.tilt_pitch * draws.normal()
    roll = spec.tilt_roll * draws.normal()
    zero = jnp.zeros(())
    about_x = jnp.stack([pitch, zero, zero])
    about_z = jnp.stack([zero, zero, roll])
    about_y = jnp.stack([zero, yaw, zero])
    turn = rotations.axis_angle_to_matrix(jnp.stack([about_x, about_z, about_y]))
    upright = turn[0] @ turn[1] @ turn[2]
    root = jnp.where(draws.flag(spec.free_rotation), random_rotation(draws), upright)
    return rotmats.at[0].set(TO_CAMERA @ root @ rotmats[0])


def place(
    joints: Float[Array, "K 3"], key: jax.Array, spec: Framing
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Draws a camera for a body.

    Args:
      joints: points of the body relative to the model origin, metres.

    Returns:
      translation (3,) metres, focal length (px), image size (2,) px.
    """
    draws = Draws(key)
    log_uniform = lambda a, b: jnp.exp(draws.uniform((), jnp.log(a), jnp.log(b)))
    aspect = log_uniform(0.6, 1.7)
    size = 1000.0 * jnp.stack([jnp.sqrt(aspect), 1.0 / jnp.sqrt(aspect)])
    focal = log_uniform(spec.focal_low, spec.focal_high) * jnp.linalg.norm(size)
    extent = jnp.max(jnp.max(joints, 0)[:2] - jnp.min(joints, 0)[:2])
    share = log_uniform(spec.height_low, spec.height_high)
    # The point closest to the camera has this depth, so that all points are in front of it.
    depth = focal * extent / (share * jnp.min(size)) - jnp.min(joints[:, 2])
    centre = spec.off_centre * draws.uniform((2,), -1.0, 1.0) * size
    middle = (jnp.max(joints, 0)[:2] + jnp.min(joints, 0)[:2]) / 2.0
    return jnp.concatenate([centre / focal * depth - middle, depth[None]]), focal, size


def assigned_names(key: jax.Array, spec: ViewSpec) -> Int[Array, "K"]:
    """Which point a detector takes for each keypoint: left and right may be swapped.

    Of the whole body, or of arms or legs alone.

    Args:
      key: that of `detector_noise`.
    """
    draws, n = Draws(key), len(DETECTED)
    of = lambda group: jnp.zeros(n, bool).at[jnp.array(group)].set(True)
    whole, arms, legs = (draws.flag(p) for p in (spec.swap, spec.swap / 2, spec.swap / 2))
    swapped = whole | (arms & of(_ARMS)) | (legs & of(_LEGS))
    return jnp.where(swapped, jnp.array(DETECTED_FLIP), jnp.arange(n))


def detector_noise(
    points: Float[Array, "K 2"], side: Float[Array, ""], key: jax.Array, spec: ViewSpec
) -> Float[Array, "K 3"]:
    """Keypoints as a detector would report them, (K, 3) px and confidence.

    Args:
      points: true keypoints, px.
      side: of the crop, px; the unit of the noise.
    """
    draws, n = Draws(jax.random.fold_in(key, 0)), len(DETECTED)

    # 1. Swap left and right.
    points = points[assigned_names(key, spec)]

    # 2. Scales of the jitter.
    scale = jnp.exp(draws.uniform((), jnp.log(spec.jitter_low), jnp.log(spec.jitter_high)))
    per_joint = jnp.exp(0.4 * draws.normal((n, 1)))
    outlier = draws.flag(spec.outlier, (n,))

    # 3. Occlusion: in a rectangle of the crop the detector guesses, with low confidence, or reports
    # nothing. Truncation: one side of the crop is outside of the picture.
    centre, half = draws.uniform((2,), -0.5, 0.5), draws.uniform((2,), 0.05, 0.35)
    middle = (jnp.max(points, 0) + jnp.min(points, 0)) / 2.0
    inside = jnp.all(jnp.abs((points - middle) / side - centre) < half, -1)
    hidden = inside & draws.flag(spec.occlude)
    axis = draws.flag(0.7).astype(jnp.int32)
    direction = jnp.where(draws.flag(0.7), 1.0, -1.0)
    cut = draws.uniform((), 0.0, 0.4)
    along = ((points - middle) / side)[:, axis] * direction
    outside = (along > cut) & draws.flag(spec.truncate)

    # 4. Locations.
    sigma = side * scale * per_joint * jnp.where(hidden[:, None] | outside[:, None], 4.0, 1.0)
    sigma = jnp.where(outlier[:, None], side * spec.outlier_size, sigma)
    noisy = points + sigma * draws.normal((n, 2))

    # 5. Confidences, 0 for keypoints that are not reported.
    good, bad = draws.uniform((n,), 0.6, 1.0), draws.uniform((n,), 0.02, 0.5)
    confidence = jnp.where(hidden | outlier & draws.flag(0.5, (n,)), bad, good)
    face = jnp.zeros(n, bool).at[jnp.array(_FACE)].set(True)
    few = (jnp.arange(n) >= 17) & draws.flag(spec.hide_feet_hands)
    dropped = draws.flag(spec.drop, (n,)) | (face & draws.flag(spec.drop_face)) | outside | few
    dropped = dropped | (hidden & (bad < 0.15))
    confidence = jnp.where(dropped, 0.0, confidence)
    return jnp.concatenate([jnp.where(dropped[:, None], 0.0, noisy), confidence[:, None]], -1)


def lifted_keypoints(
    points: Float[Array, "K 3"],
    shift: Float[Array, "K 2"],
    key: jax.Array,
    spec: ViewSpec,
) -> Float[Array, "K 3"]:
    """3D keypoints as a network would estimate them, metres from mid-hip; all zero: no estimate.

    One network estimates the keypoints in 2D and in 3D, so both have the same swaps, and their
    errors across the view are partly the same.

    The errors are fitted to BlazePose's on rendered people: depth too small by a sixth, a scale
    error of 8 %, a small rotation of all keypoints, and errors that grow along the limbs, are twice
    as large in depth, and are mostly common to a limb.

    Args:
      points: true keypoints under the detected names (`assigned_names`), metres, camera
        coordinates.
      shift: errors of the 2D keypoints, metres at the depth of the person; 0 where not detected.
    """
    draws = Draws(key)
    points = points + jnp.pad(shift, ((0, 0), (0, 1)))
    points = points - jnp.mean(points[jnp.array(HIPS)], 0)
    reach = jnp.linalg.norm(points, axis=-1, keepdims=True)
    size = spec.lift_noise * jnp.exp(0.4 * draws.normal()) * jnp.array([1.0, 1.0, 2.0])
    common = draws.normal((max(_LIMBS) + 1, 3))[jnp.array(_LIMBS)]
    error = reach * size * (0.8 * common + 0.6 * draws.normal(points.shape))
    turn = rotations.axis_angle_to_matrix(spec.lift_turn * draws.normal((3,)))
    scale = jnp.exp(0.08 * draws.normal()) * jnp.array([1.0, 1.0, 0.85])
    unknown = draws.flag(spec.lift_unknown)
    return jnp.where(unknown, 0.0, points @ turn.T * scale + error)


def detected_shift(
    keypoints: Float[Array, "K 3"], points2d: Float[Array, "K 2"], scale: Float[Array, ""]
) -> Float[Array, "K 2"]:
    """Errors of detected keypoints in metres, for `lifted_keypoints`.

    Args:
      keypoints: px and confidence.
      points2d: the points that they stand for, px.
      scale: metres of a px at the depth of the person.
    """
    return jnp.where(keypoints[:, 2:] > 0, keypoints[:, :2] - points2d, 0.0) * scale


def jittered(crop: Float[Array, "3"], draws: Draws, amount: float) -> Float[Array, "3"]:
    """A crop whose centre and side change by up to `amount` of the side, at random."""
    jitter = amount * draws.uniform((3,), -1.0, 1.0)
    return jnp.concatenate([crop[:2] + jitter[:2] * crop[2], (crop[2] * (1.0 + jitter[2]))[None]])


def make_view(
    body: smpl_jax.SmplModel, pose: Float[Array, "72"], key: jax.Array, spec: ViewSpec
) -> Rows:
    """One training row, without a row axis, from one corpus pose.

    Args:
      body: a keypoint model (geometry.keypoints.keypoint_model).
      pose: axis-angle, radians, y up.
    """
    # 1. The body and its camera.
    k = jax.random.split(key, 5)
    draws = Draws(k[1])
    rotmats = augment_pose(pose, k[0], spec)
    betas = jnp.clip(spec.betas * draws.normal((10,)), -3.0, 3.0)
    output = smpl_jax.forward(body, betas, rotmats)
    points = keypoint_points(body, output, DETECTED)
    translation, focal, size = place(jnp.concatenate([output.joints, points]), k[2], spec)
    centre = size / 2.0
    # 2. Its keypoints, and the crop around the detected ones, if there are enough.
    points2d = camera.project(points + translation, focal, centre)
    true_crop = camera.crop_around(points2d, jnp.ones(len(DETECTED)))
    keypoints = detector_noise(points2d, true_crop[2], k[3], spec)
    crop = camera.crop_around(keypoints[:, :2], keypoints[:, 2])
    crop = jnp.where(jnp.sum(keypoints[:, 2] > 0) >= 3, crop, true_crop)
    view = CropCamera(jittered(crop, draws, spec.crop_jitter), focal, centre)
    names = assigned_names(k[3], spec)
    shift = detected_shift(keypoints, points2d[names], translation[2] / focal)
    return Rows(
        view=view,
        rotmats=rotmats,
        betas=betas,
        joints=output.joints,
        keypoints=keypoints,
        points2d=points2d,
        weak_camera=view.weak(translation),
        keypoints3d=lifted_keypoints(points[names], shift, k[4], spec),
    )


def make_views(
    body: smpl_jax.SmplModel,
    poses: Float[Array, "B 72"],
    numbers: Array,
    stream: Array,
    spec: ViewSpec,
) -> Rows:
    """`make_view` for a batch.

    Args:
      stream: a typed key of random_streams.stream. Sample i uses fold_in(stream, numbers[i]), so
        that it does not depend on the rest of the batch.
    """
    view = lambda pose, number: make_view(body, pose, jax.random.fold_in(stream, number), spec)
    return jax.vmap(view)(poses, numbers)

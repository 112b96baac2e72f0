"""Simulated views of hands, on the device: noisy keypoints in 2D and 3D with exact labels.

They are training input without images, as data/views.py makes it for bodies. The errors are those
of a landmark network: it reports all 21 keypoints of a hand, also hidden ones, and the errors of a
finger are correlated. All hands are right hands. A left hand is recovered in the mirror.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import smpl_jax
from jaxtyping import Array, Float
from smpl_jax import rotations

from genhmr_jax.data.draws import Draws
from genhmr_jax.data.rows import Rows
from genhmr_jax.data.views import Framing, jittered, place, random_rotation
from genhmr_jax.geometry import camera
from genhmr_jax.geometry.camera import CropCamera
from genhmr_jax.geometry.hand import HAND21, hand_keypoints
from genhmr_jax.geometry.hand_crop import confidence_of

_FINGERS = np.array([0, *np.repeat(np.arange(1, 6), 4)])
"""The group of each keypoint, whose errors are correlated: the wrist, then the fingers."""
_ALONG = np.array([0.3, *np.tile([0.3, 0.6, 0.9, 1.2], 5)], np.float32)
"""Errors of keypoints relative to those in the middle of a finger: tips are the least certain."""


@dataclasses.dataclass(frozen=True)
class HandViewSpec(Framing):
    """How views of hands are sampled. Noise in px is given in crop sides; angles in radians."""

    pose_noise: float = 0.03  # radians, added to each finger joint
    betas: float = 1.0
    height_low: float = 0.05
    height_high: float = 0.9
    off_centre: float = 0.35
    jitter_low: float = 0.003
    jitter_high: float = 0.025
    finger: float = 0.1  # probability that a finger has a large error
    finger_size: float = 0.08
    noticed: float = 0.7  # share of these for which the expected error is large too
    spread_noise: float = 0.3  # of the logarithm of the expected errors
    drop: float = 0.02  # share of keypoints that are not reported (of users' own keypoints)
    crop_jitter: float = 0.05
    lift_noise: float = 0.008  # metres, error of 3D keypoints across the view; twice that in depth
    lift_turn: float = 0.15  # radians, rotation of all 3D keypoints
    lift_unknown: float = 0.1  # share of samples without 3D keypoints


def augment_hand(
    pose: Float[Array, "48"], key: jax.Array, spec: HandViewSpec
) -> Float[Array, "16 3 3"]:
    """Rotation matrices of a corpus pose from any direction, with noise in the finger joints."""
    draws = Draws(key)
    noise = spec.pose_noise * draws.normal((15, 3))
    rotmats = rotations.axis_angle_to_matrix(pose.reshape(16, 3))
    rotmats = rotmats.at[1:].set(rotmats[1:] @ rotations.axis_angle_to_matrix(noise))
    return rotmats.at[0].set(random_rotation(draws) @ rotmats[0])


def detected(
    points: Float[Array, "21 2"], side: Float[Array, ""], key: jax.Array, spec: HandViewSpec
) -> Float[Array, "21 3"]:
    """Keypoints as a detector would report them, px and confidence.

    The confidence follows from the expected error, which the detector does not know exactly. It
    does not notice every large error of a finger.

    Args:
      points: true keypoints, px.
      side: of the crop, px; the unit of the noise.
    """
    draws = Draws(key)
    low, high = jnp.log(spec.jitter_low), jnp.log(spec.jitter_high)
    scale = jnp.exp(draws.uniform((), low, high))
    # 1. Errors that are common to a finger, and those of single keypoints.
    wrong = draws.flag(spec.finger, (6,))
    of_finger = jnp.where(wrong, spec.finger_size, scale)[_FINGERS]
    common = draws.normal((6, 2))[_FINGERS]
    own = draws.normal(points.shape)
    error = side * _ALONG[:, None] * (of_finger[:, None] * 0.8 * common + scale * 0.6 * own)
    # 2. Confidences, 0 for keypoints that are not reported. 0.8 is the mean absolute value of a
    # normal number.
    noticed = wrong & draws.flag(spec.noticed, (6,))
    of_finger = jnp.where(noticed, spec.finger_size, scale)[_FINGERS]
    spread = 0.8 * _ALONG * jnp.hypot(0.8 * of_finger, 0.6 * scale)
    spread = spread * jnp.exp(spec.spread_noise * draws.normal(spread.shape))
    sure = draws.uniform((), 0.8, 1.0) * confidence_of(spread)
    dropped = draws.flag(spec.drop, (len(HAND21),))
    confidence = jnp.where(dropped, 0.0, sure)
    points = jnp.where(dropped[:, None], 0.0, points + error)
    return jnp.concatenate([points, confidence[:, None]], -1)


def lifted(
    points: Float[Array, "21 3"],
    shift: Float[Array, "21 2"],
    key: jax.Array,
    spec: HandViewSpec,
) -> Float[Array, "21 3"]:
    """3D keypoints as a network would estimate them, metres from the wrist; all zero: no estimate.

    Args:
      points: true keypoints, metres, camera axes.
      shift: errors of the 2D keypoints, metres at the depth of the hand.
    """
    draws = Draws(key)
    size = spec.lift_noise * jnp.exp(0.4 * draws.normal()) * jnp.array([1.0, 1.0, 2.0])
    common = draws.normal((6, 3))[_FINGERS]
    error = 0.8 * common + 0.6 * draws.normal(points.shape)
    error = error * size * _ALONG[:, None] + jnp.pad(shift, ((0, 0), (0, 1)))
    turn = rotations.axis_angle_to_matrix(spec.lift_turn * draws.normal((3,)))
    scale = jnp.exp(0.1 * draws.normal())
    unknown = draws.flag(spec.lift_unknown)
    moved = (points - points[:1]) @ turn.T * scale + error
    return jnp.where(unknown, 0.0, moved - moved[:1])


def make_hand_view(
    hand: smpl_jax.SmplModel, pose: Float[Array, "48"], key: jax.Array, spec: HandViewSpec
) -> Rows:
    """One training row, without a row axis, from one corpus pose.

    Args:
      hand: a right hand (geometry.hand.hand_keypoint_model).
      pose: axis-angle, radians, wrist first.
    """
    # 1. The hand and its camera.
    k = jax.random.split(key, 5)
    draws = Draws(k[1])
    rotmats = augment_hand(pose, k[0], spec)
    betas = jnp.clip(spec.betas * draws.normal((hand.num_betas,)), -3.0, 3.0)
    output = smpl_jax.forward(hand, betas, rotmats)
    points = hand_keypoints(hand, output)
    translation, focal, size = place(points, k[2], spec)
    centre = size / 2.0
    # 2. Its keypoints, and the crop around the detected ones.
    points2d = camera.project(points + translation, focal, centre)
    true_crop = camera.crop_around(points2d, jnp.ones(len(HAND21)))
    keypoints = detected(points2d, true_crop[2], k[3], spec)
    crop = camera.crop_around(keypoints[:, :2], keypoints[:, 2])
    view = CropCamera(jittered(crop, draws, spec.crop_jitter), focal, centre)
    known = keypoints[:, 2:] > 0
    shift = jnp.where(known, keypoints[:, :2] - points2d, 0.0) * translation[2] / focal
    return Rows(
        view=view,
        rotmats=rotmats,
        betas=betas,
        joints=output.joints,
        keypoints=keypoints,
        points2d=points2d,
        weak_camera=view.weak(translation),
        keypoints3d=lifted(points, shift, k[4], spec),
    )


def make_hand_views(
    hand: smpl_jax.SmplModel,
    poses: Float[Array, "B 48"],
    numbers: Array,
    stream: Array,
    spec: HandViewSpec,
) -> Rows:
    """`make_hand_view` for a batch; sample i uses fold_in(stream, numbers[i]), a typed key."""
    view = lambda pose, number: make_hand_view(hand, pose, jax.random.fold_in(stream, number), spec)
    return jax.vmap(view)(poses, numbers)

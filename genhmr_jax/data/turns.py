"""Stored rows, mirrored and turned about the optical axis: exact new views without pictures.

A turn about the optical axis and a mirror image are the two changes of a camera after which all
labels can be computed without rendering.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array
from smpl_jax import rotations
from smpl_jax.keypoints import SMPL24_FLIP, flip_rotmats

from genhmr_jax.data.draws import Draws
from genhmr_jax.data.rows import Rows
from genhmr_jax.data.views import jittered
from genhmr_jax.geometry import camera
from genhmr_jax.geometry.keypoints import DETECTED_FLIP


@dataclasses.dataclass(frozen=True)
class TurnSpec:
    """How stored rows are changed."""

    mirror: float = 0.5  # share of samples
    turn: float = 0.25  # radians
    jitter: float = 0.004  # crop sides
    jitter3d: float = 0.015  # metres
    drop: float = 0.02  # share of keypoints
    drop3d: float = 0.15  # share of samples without 3D keypoints
    crop_jitter: float = 0.08  # crop sides


def turn_row(row: Rows, key: jax.Array, spec: TurnSpec) -> Rows:
    """One stored row (data/features.py), without a row axis, in another camera.

    The crop follows the keypoints.
    """
    # 1. Draw the change.
    draws = Draws(key)
    view, centre, known = row.view, row.view.centre, row.keypoints[:, 2:] > 0
    flip = draws.flag(spec.mirror)
    angle = spec.turn * draws.normal()
    turn = rotations.axis_angle_to_matrix(angle * jnp.array([0.0, 0.0, 1.0]))
    sides, joints_flip = jnp.array(DETECTED_FLIP), jnp.array(SMPL24_FLIP)

    def moved(points: Array, order: Array) -> Array:
        """Points (n, 2 or 3), relative to the optical axis, in the new camera."""
        n = points.shape[-1]
        points = jnp.where(flip, points[order] * jnp.array([-1.0, 1.0, 1.0])[:n], points)
        return points @ turn[:n, :n].T

    # 2. The body.
    translation = view.translation(row.weak_camera)
    pelvis = row.joints[0]  # a root rotation does not move it
    joints = moved(row.joints + translation, joints_flip)
    rotmats = jnp.where(flip, flip_rotmats(row.rotmats), row.rotmats)
    rotmats = rotmats.at[0].set(turn @ rotmats[0])

    # 3. The keypoints, with noise.
    dropped = draws.flag(spec.drop, known.shape)
    known = jnp.where(flip, known[sides], known) & ~dropped
    confidence = jnp.where(flip, row.keypoints[sides, 2:], row.keypoints[:, 2:])
    points = moved(row.keypoints[:, :2] - centre, sides) + centre
    points = points + spec.jitter * row.view.crop[2] * draws.normal(points.shape)
    keypoints = jnp.where(known, jnp.concatenate([points, confidence], -1), 0.0)

    lifted = moved(row.keypoints3d, sides)
    known3d = jnp.any(lifted != 0) & ~draws.flag(spec.drop3d)
    lifted = jnp.where(known3d, lifted + spec.jitter3d * draws.normal(lifted.shape), 0.0)

    # 4. The crop around them.
    crop = camera.crop_around(keypoints[:, :2], keypoints[:, 2])
    view = dataclasses.replace(view, crop=jittered(crop, draws, spec.crop_jitter))
    return dataclasses.replace(
        row,
        view=view,
        rotmats=rotmats,
        joints=joints - joints[0] + pelvis,
        keypoints=keypoints,
        keypoints3d=lifted,
        points2d=moved(row.points2d - centre, sides) + centre,
        weak_camera=view.weak(joints[0] - pelvis),
    )

"""Detected people, mirrored and turned about the optical axis: exact new views of stored rows,
whose pictures are not needed any more.

A turn about the optical axis and a mirror image are the two changes of a camera under which every
label follows without rendering again.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array
from smpl_jax import rotations
from smpl_jax.keypoints import SMPL24_FLIP

from genhmr_jax.data.rows import Rows
from genhmr_jax.data.views import mirror_rotmats
from genhmr_jax.geometry import camera
from genhmr_jax.geometry.keypoints import DETECTED_FLIP


@dataclasses.dataclass(frozen=True)
class TurnSpec:
    """How stored rows are changed: turn in radians, jitter in crop sides, jitter3d in metres, the
    rest shares of samples or of sides."""

    mirror: float = 0.5
    turn: float = 0.25
    jitter: float = 0.004
    jitter3d: float = 0.015
    drop: float = 0.02  # of keypoints
    drop3d: float = 0.15  # of whole 3D guesses
    crop_jitter: float = 0.08


def turn_row(row: Rows, key: jax.Array, spec: TurnSpec) -> Rows:
    """One stored row (data/features.py), without a row axis, as another camera would have seen it.

    Crop and camera follow the keypoints; labels that do not change stay.
    """
    k = jax.random.split(key, 7)
    view, centre, known = row.view, row.view.centre, row.keypoints[:, 2:] > 0
    flip = jax.random.bernoulli(k[0], spec.mirror)
    angle = spec.turn * jax.random.normal(k[1])
    turn = rotations.axis_angle_to_matrix(angle * jnp.array([0.0, 0.0, 1.0]))
    sides, joints_flip = jnp.array(DETECTED_FLIP), jnp.array(SMPL24_FLIP)

    def moved(points: Array, order: Array) -> Array:
        """Points (n, 2 or 3) about the optical axis."""
        n = points.shape[-1]
        points = jnp.where(flip, points[order] * jnp.array([-1.0, 1.0, 1.0])[:n], points)
        return points @ turn[:n, :n].T

    translation = view.translation(row.weak_camera)
    pelvis = row.joints[0]  # a root rotation leaves it where it is
    placed = moved(row.joints + translation, joints_flip)
    rotmats = jnp.where(flip, mirror_rotmats(row.rotmats), row.rotmats)
    rotmats = rotmats.at[0].set(turn @ rotmats[0])

    known = jnp.where(flip, known[sides], known) & ~jax.random.bernoulli(
        k[2], spec.drop, known.shape
    )
    confidence = jnp.where(flip, row.keypoints[sides, 2:], row.keypoints[:, 2:])
    seen = moved(row.keypoints[:, :2] - centre, sides) + centre
    seen = seen + spec.jitter * row.view.crop[2] * jax.random.normal(k[3], seen.shape)
    keypoints = jnp.where(known, jnp.concatenate([seen, confidence], -1), 0.0)

    lifted = moved(row.keypoints3d, sides)
    guessed = jnp.any(lifted != 0) & ~jax.random.bernoulli(k[4], spec.drop3d)
    lifted = jnp.where(guessed, lifted + spec.jitter3d * jax.random.normal(k[5], lifted.shape), 0.0)

    crop = camera.crop_around(keypoints[:, :2], keypoints[:, 2])
    jitter = spec.crop_jitter * jax.random.uniform(k[6], (3,), minval=-1.0, maxval=1.0)
    crop = jnp.concatenate([crop[:2] + jitter[:2] * crop[2], (crop[2] * (1.0 + jitter[2]))[None]])
    view = dataclasses.replace(view, crop=crop)
    return dataclasses.replace(
        row,
        view=view,
        rotmats=rotmats,
        joints=placed - placed[0] + pelvis,
        keypoints=keypoints,
        keypoints3d=lifted,
        points2d=moved(row.points2d - centre, sides) + centre,
        weak_camera=view.weak(placed[0] - pelvis),
    )

"""Forward kinematics of the skeleton in JAX, and how its markers move with pose and scales."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from smpl_jax.rotations import axis_angle_to_matrix, compose, rotate

from genhmr_jax.geometry.anatomy import ANGLES, AXES, BODIES, GROUP, GROUPS, OWNER, PARENTS
from genhmr_jax.geometry.markers import CARRIERS
from genhmr_jax.systems.biopose.skeleton import Skeleton

INNER = len(ANGLES) - 3
"""Angles of joints between bodies: all but those of the pelvis."""
_einsum = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Pose:
    """Poses of F frames; the pelvis has a rotation, which has no gimbal lock.

    Attributes:
      rotation: (F, 3, 3) of the pelvis. translation: (F, 3) of its origin, metres.
      angles: (F, 41) of ANGLES[3:], radians.
    """

    rotation: Array
    translation: Array
    angles: Array


class Placed(NamedTuple):
    """The bodies in space.

    Attributes:
      rotations: (F, B, 3, 3). centres: (F, B, 3) metres.
      axes: (F, 41, 3) of the angles, in the ground. markers: (F, M, 3).
    """

    rotations: Float[Array, "F B 3 3"]
    centres: Float[Array, "F B 3"]
    axes: Float[Array, "F 41 3"]
    markers: Float[Array, "F M 3"]


def _below() -> Float[np.ndarray, "B B"]:
    """1 at (b, c) if body c is b or below it."""
    below = np.eye(len(BODIES), dtype=np.float32)
    for body, parent in enumerate(PARENTS):
        if parent >= 0:
            below[:, body] += below[:, parent]
    return below


_BELOW = _below()
_MOVED = _BELOW[OWNER[3:]][:, CARRIERS].T
"""(M, 41): 1 where an angle moves a marker."""


def _scale_tables() -> tuple[np.ndarray, np.ndarray]:
    """(M, G, B) and (M, G): offsets of bodies, and own positions, that a scale stretches."""
    groups = np.eye(len(GROUPS), dtype=np.float32)
    above = np.array([groups[GROUP[p]] * (p >= 0) for p in PARENTS], np.float32)
    return np.einsum("bm,bg->mgb", _BELOW[:, CARRIERS], above), groups[GROUP[CARRIERS]]


_OFFSETS, _OWN = _scale_tables()


def turn(axis: Float[np.ndarray, "3"], angle: Float[Array, "*b"]) -> Float[Array, "*b 3 3"]:
    """Rotation matrices about a constant axis (Rodrigues)."""
    cross = np.cross(np.eye(3), axis).astype(np.float32)
    angle = angle[..., None, None]
    square = (cross @ cross).astype(np.float32)
    return jnp.eye(3) + jnp.sin(angle) * cross + (1 - jnp.cos(angle)) * square


def place(skeleton: Skeleton, pose: Pose, scales: Float[Array, "G"]) -> Placed:
    """Forward kinematics: x_c = x_p + R_p s_p o_c, and R_c = R_p T_c prod_i Rot(a_i, q_i)."""
    sizes = scales[GROUP]
    rotations, centres, axes = [pose.rotation], [pose.translation], []
    for body, parent in enumerate(PARENTS[1:], 1):
        above = rotations[parent]
        offset = sizes[parent] * jnp.asarray(skeleton.offsets)[body]
        centres.append(centres[parent] + rotate(above, offset))
        turned = compose(above, jnp.asarray(skeleton.turns)[body])
        for number in np.flatnonzero(OWNER == body):
            axis = AXES[number].astype(np.float32)
            axes.append(rotate(turned, axis))
            turned = compose(turned, turn(axis, pose.angles[:, number - 3]))
        rotations.append(turned)
    rotations, centres = jnp.stack(rotations, 1), jnp.stack(centres, 1)
    local = sizes[CARRIERS][:, None] * jnp.asarray(skeleton.markers)
    markers = centres[:, CARRIERS] + _einsum("fmij,mj->fmi", rotations[:, CARRIERS], local)
    return Placed(rotations, centres, jnp.stack(axes, 1), markers)


def by_pose(placed: Placed) -> Float[Array, "F M 3 47"]:
    """Derivatives of the markers by the pose: rotation of the pelvis, R -> exp([w]x) R with w in
    the axes of the ground, its translation, and the angles."""
    frames, count = placed.markers.shape[:2]
    pivots = placed.centres[:, OWNER[3:]]
    arms = placed.markers[:, :, None] - pivots[:, None]
    inner = jnp.cross(placed.axes[:, None], arms) * _MOVED[..., None]
    arm = placed.markers - placed.centres[:, :1]
    whole = jnp.cross(jnp.eye(3), arm[:, :, None])
    shift = jnp.broadcast_to(jnp.eye(3), (frames, count, 3, 3))
    return jnp.swapaxes(jnp.concatenate([whole, shift, inner], 2), 2, 3)


def by_scales(skeleton: Skeleton, placed: Placed) -> Float[Array, "F M 3 G"]:
    """Derivatives of the markers by the scales of the groups."""
    above = placed.rotations[:, np.maximum(PARENTS, 0)]
    offsets = _einsum("fbij,bj->fbi", above, jnp.asarray(skeleton.offsets))
    own = _einsum("fmij,mj->fmi", placed.rotations[:, CARRIERS], jnp.asarray(skeleton.markers))
    return _einsum("mgb,fbi->fmig", _OFFSETS, offsets) + own[..., None] * _OWN[:, None]


def moved(pose: Pose, step: Float[Array, "F 47"]) -> Pose:
    """A pose after a step of `by_pose`."""
    return Pose(
        compose(axis_angle_to_matrix(step[:, :3]), pose.rotation),
        pose.translation + step[:, 3:6],
        pose.angles + step[:, 6:],
    )

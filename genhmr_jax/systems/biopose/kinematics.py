"""Forward kinematics of the skeleton in JAX, and how its markers move with pose and scales."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from smpl_jax.rotations import axis_angle_to_matrix, compose

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


def _slots() -> tuple[np.ndarray, np.ndarray]:
    """(B, 3) index among the 41 angles of each rotation of a joint, or 41 where it has fewer; and
    (41, 2) body and place of each angle."""
    slots, where = np.full((len(BODIES), 3), INNER), np.zeros((INNER, 2), int)
    for number, body in enumerate(OWNER[3:]):
        place = int((slots[body] < INNER).sum())
        slots[body, place], where[number] = number, (body, place)
    return slots, where


_SLOTS, _WHERE = _slots()


def _levels() -> list[np.ndarray]:
    """The bodies below the pelvis, by their distance from it in the tree."""
    depth = np.zeros(len(BODIES), int)
    for body, parent in enumerate(PARENTS[1:], 1):
        depth[body] = depth[parent] + 1
    return [np.flatnonzero(depth == level) for level in range(1, depth.max() + 1)]


_LEVELS, _ABOVE = _levels(), np.array(PARENTS)


def turns_about(
    axes: Float[np.ndarray, "n 3"], angles: Float[Array, "*b n"]
) -> Float[Array, "*b n 3 3"]:
    """Rotation matrices about constant axes, radians (Rodrigues)."""
    cross = np.cross(np.eye(3), np.asarray(axes)[:, None]).astype(np.float32)
    angles = angles[..., None, None]
    return jnp.eye(3) + jnp.sin(angles) * cross + (1 - jnp.cos(angles)) * (cross @ cross)


def place(skeleton: Skeleton, pose: Pose, scales: Float[Array, "G"]) -> Placed:
    """Forward kinematics: x_c = x_p + R_p s_p o_c, and R_c = R_p T_c prod_i Rot(a_i, q_i).

    All joints turn at the same time; then the bodies follow their parents, level by level.
    """
    frames, sizes = len(pose.angles), scales[GROUP]
    single = turns_about(AXES[3:], pose.angles)
    unit = jnp.broadcast_to(jnp.eye(3), (frames, 1, 3, 3))
    slots = jnp.concatenate([single, unit], 1)[:, _SLOTS]
    first, two = slots[:, :, 0], _einsum("fbij,fbjk->fbik", slots[:, :, 0], slots[:, :, 1])
    whole = _einsum("fbij,fbjk->fbik", two, slots[:, :, 2])
    offsets = sizes[np.maximum(_ABOVE, 0)][:, None] * jnp.asarray(skeleton.offsets)
    rotations = jnp.broadcast_to(pose.rotation[:, None], (frames, len(BODIES), 3, 3))
    zero = rotations  # at zero angles of the joint
    centres = jnp.broadcast_to(pose.translation[:, None], (frames, len(BODIES), 3))
    for level in _LEVELS:
        above = rotations[:, _ABOVE[level]]
        here = _einsum("fbij,bjk->fbik", above, jnp.asarray(skeleton.turns)[level])
        zero = zero.at[:, level].set(here)
        rotations = rotations.at[:, level].set(_einsum("fbij,fbjk->fbik", here, whole[:, level]))
        shift = _einsum("fbij,bj->fbi", above, offsets[level])
        centres = centres.at[:, level].set(centres[:, _ABOVE[level]] + shift)
    # An axis is turned by the rotations of its joint before it.
    before = jnp.stack([jnp.broadcast_to(jnp.eye(3), first.shape), first, two], 2)
    before = before[:, _WHERE[:, 0], _WHERE[:, 1]]
    axes = _einsum("fnij,fnjk,nk->fni", zero[:, _WHERE[:, 0]], before, AXES[3:])
    local = sizes[CARRIERS][:, None] * jnp.asarray(skeleton.markers)
    markers = centres[:, CARRIERS] + _einsum("fmij,mj->fmi", rotations[:, CARRIERS], local)
    return Placed(rotations, centres, axes, markers)


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

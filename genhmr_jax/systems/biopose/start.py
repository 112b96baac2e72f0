"""A start for inverse kinematics in closed form: the rotation of each body from its own markers."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from smpl_jax.rotations import compose

from genhmr_jax.core.mesh_fit import nearest_rotation
from genhmr_jax.geometry.anatomy import AXES, BODIES, LIMITS, OWNER, PARENTS
from genhmr_jax.geometry.markers import CARRIERS
from genhmr_jax.systems.biopose.kinematics import Pose, turn
from genhmr_jax.systems.biopose.skeleton import Skeleton

# Weight of the rotation at zero angles, m^2: that of a marker at this distance squared.
_LIKE_ZERO = 0.01**2


def closed_form(
    skeleton: Skeleton, markers: Float[Array, "F M 3"], weights: Float[Array, "F M"]
) -> Pose:
    """Poses near markers.

    From the pelvis outwards, each body is turned as its markers are (Kabsch 1976), as far as the
    axes and limits of its joint allow. A body without markers turns as its child does.

    Args:
      skeleton: with its scales.
      markers: metres. weights: 0 where a marker is not known.
    """
    local, frames = jnp.asarray(skeleton.markers), len(markers)
    rotations: list[Array] = []
    angles: list[Array] = []
    for body, parent in enumerate(PARENTS):
        mine = np.flatnonzero(CARRIERS == body)
        if not len(mine):
            mine = np.flatnonzero(CARRIERS == PARENTS.index(body))
        zero = jnp.tile(jnp.eye(3), (frames, 1, 1))
        if parent >= 0:
            zero = compose(rotations[parent], jnp.asarray(skeleton.turns)[body])
        w = weights[:, mine, None]
        total = jnp.sum(w, 1, keepdims=True) + 1e-9
        centred = lambda x, w=w, total=total: x - jnp.sum(w * x, 1, keepdims=True) / total
        seen = w * centred(markers[:, mine])
        own = centred(jnp.broadcast_to(local[mine], seen.shape))
        spread = jnp.einsum("fmi,fmj->fij", seen, own, precision=jax.lax.Precision.HIGHEST)
        found = nearest_rotation(spread + _LIKE_ZERO * zero)
        if parent < 0:
            rotations.append(found)
            continue
        numbers = np.flatnonzero(OWNER == body)
        relative = jnp.einsum("fji,fjk->fik", zero, found, precision=jax.lax.Precision.HIGHEST)
        values = joint_angles(relative, AXES[numbers], LIMITS[numbers])
        angles.append(values)
        for axis, value in zip(AXES[numbers], values.T, strict=True):
            zero = compose(zero, turn(axis, value))
        rotations.append(zero)
    # The pelvis: its markers where they are.
    carried = np.flatnonzero(CARRIERS == 0)
    w = weights[:, carried, None]
    placed = jnp.einsum("fij,mj->fmi", rotations[0], local[carried])
    shift = jnp.sum(w * (markers[:, carried] - placed), 1) / (jnp.sum(w, 1) + 1e-9)
    assert len(rotations) == len(BODIES)
    return Pose(rotations[0], shift, jnp.concatenate(angles, -1))


def joint_angles(
    relative: Float[Array, "F 3 3"],
    axes: Float[np.ndarray, "n 3"],
    limits: Float[np.ndarray, "n 2"],
) -> Float[Array, "F n"]:
    """The angles about n axes whose product is close to a rotation, within limits.

    Of one axis the closest angle, as in skeleton.closest_angle; else those of the sequence of the
    two axes and their cross product, or of the three axes. It has two solutions, and the one that
    exceeds the limits less is taken.
    """
    low, high = np.asarray(limits, np.float32).T
    if len(axes) == 1:
        (axis,) = np.asarray(axes, np.float32)
        skew = relative - jnp.swapaxes(relative, -1, -2)
        vector = jnp.stack([skew[:, 2, 1], skew[:, 0, 2], skew[:, 1, 0]], -1)
        trace = jnp.einsum("fii->f", relative)
        along = trace - jnp.einsum("i,fij,j->f", axis, relative, axis)
        return jnp.clip(jnp.arctan2(vector @ axis, along)[:, None], low, high)
    pair = both_sequences(relative, axes)[..., : len(axes)]
    excess = jnp.maximum(low - pair, 0) + jnp.maximum(pair - high, 0)
    second = jnp.sum(excess[1], -1) < jnp.sum(excess[0], -1)
    return jnp.clip(jnp.where(second[:, None], pair[1], pair[0]), low, high)


def both_sequences(
    rotation: Float[Array, "F 3 3"], axes: Float[np.ndarray, "n 3"]
) -> Float[Array, "2 F 3"]:
    """The two solutions of R = Rot(a1, q1) Rot(a2, q2) Rot(a3, q3) of orthogonal axes, -pi..pi.

    In the axes themselves the entry (1, 3) is sin q2; the entries beside it give q1 and q3. The
    other solution is (q1 + pi, pi - q2, q3 + pi). Of two axes the third is their cross product.
    """
    own = np.asarray(axes, np.float32)
    if len(own) == 2:
        own = np.concatenate([own, np.cross(own[:1], own[1:])])
    hand = np.round(np.linalg.det(own)).astype(np.float32)  # of a left-handed frame: -1
    r = jnp.einsum("ai,fij,bj->fab", own, rotation, own, precision=jax.lax.Precision.HIGHEST)
    middle = jnp.arcsin(jnp.clip(r[:, 0, 2], -1, 1))
    first = jnp.arctan2(-r[:, 1, 2], r[:, 2, 2])
    last = jnp.arctan2(-r[:, 0, 1], r[:, 0, 0])
    one = hand * jnp.stack([first, middle, last], -1)
    wrap = lambda x: (x + jnp.pi) % (2 * jnp.pi) - jnp.pi
    return jnp.stack([one, wrap(jnp.array([1, -1, 1]) * one + jnp.pi)])

"""A start for inverse kinematics in closed form: the rotation of each body from its own markers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from smpl_jax.rotations import compose

from genhmr_jax.core.mesh_fit import nearest_rotation
from genhmr_jax.geometry.anatomy import AXES, BODIES, LIMITS, OWNER, PARENTS
from genhmr_jax.geometry.markers import CARRIERS
from genhmr_jax.systems.biopose.kinematics import Pose, turns_about
from genhmr_jax.systems.biopose.skeleton import Skeleton

# Weight of the torso's rotation for a clavicle, whose two markers leave the turn about their line
# open, and of no rotation for other bodies, m^2: that of a marker at this distance squared.
_LIKE_TORSO, _LIKE_REST = 0.02**2, 1e-4**2
_AXIS_COUNT = np.bincount(OWNER, minlength=len(BODIES))
_MARKER_COUNT = np.bincount(CARRIERS, minlength=len(BODIES))
_ABOVE = np.maximum(PARENTS, 0)
_einsum = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


def closed_form(
    skeleton: Skeleton, markers: Float[Array, "F M 3"], weights: Float[Array, "F M"]
) -> Pose:
    """Poses near markers.

    Each body is turned as its markers are (Kabsch 1976), and the angles of a joint are those of the
    axes that it has between the two bodies, within its limits. A body without markers (talus, ulna)
    turns from its parent towards its child, and one with a single marker (toes) as its parent does.

    Args:
      skeleton: with its scales.
      markers: metres. weights: 0 where a marker is not known.
    """
    local, turns = jnp.asarray(skeleton.markers), jnp.asarray(skeleton.turns)
    # 1. sum_m w_m (y_m - mean y) x_m^T of each body.
    member = np.eye(len(BODIES), dtype=np.float32)[CARRIERS]
    share = weights[..., None] * member
    total = jnp.sum(share, 1)[..., None] + 1e-9
    mean = _einsum("fmb,fmi->fbi", share, markers) / total
    own = _einsum("fmb,mi->fbi", share, local) / total
    seen, arm = markers - mean[:, CARRIERS], local - own[:, CARRIERS]
    spread = _einsum("fmb,fmi,fmj->fbij", share, seen, arm)
    found = _nearest(spread + _LIKE_REST * jnp.eye(3))
    pairs = [BODIES.index("clavicle_r"), BODIES.index("clavicle_l")]
    torso = found[:, [BODIES.index("torso")]]
    found = found.at[:, pairs].set(_nearest(spread[:, pairs] + _LIKE_TORSO * torso))
    # 2. Bodies without enough markers.
    for body in np.flatnonzero(_MARKER_COUNT == 1):
        zero = _einsum("fij,jk->fik", found[:, PARENTS[body]], turns[body])
        found = found.at[:, body].set(zero)
    found = turned_towards_children(turns, found)
    # 3. Angles between the bodies.
    angles = angles_between(turns, found)
    # 4. The pelvis: its markers where they are.
    shift = mean[:, 0] - _einsum("fij,fj->fi", found[:, 0], own[:, 0])
    return Pose(found[:, 0], shift, angles[:, 3:])


def turned_towards_children(
    turns: Float[Array, "B 3 3"], rotations: Float[Array, "F B 3 3"]
) -> Float[Array, "F B 3 3"]:
    """Rotations in which talus and ulna, which carry no marker, turn from their parents towards
    their children about the one axis that they have."""
    for body in np.flatnonzero(_MARKER_COUNT == 0):
        zero = _einsum("fij,jk->fik", rotations[:, PARENTS[body]], turns[body])
        relative = _einsum("fji,fjk->fik", zero, rotations[:, PARENTS.index(body)])
        angle = _closest(relative[:, None], AXES[OWNER == body])
        turned = compose(zero, turns_about(AXES[OWNER == body], angle)[:, 0])
        rotations = rotations.at[:, body].set(turned)
    return rotations


def angles_between(
    turns: Float[Array, "B 3 3"], rotations: Float[Array, "F B 3 3"]
) -> Float[Array, "F 44"]:
    """The angles of the joints between rotated bodies, within their limits; the pelvis's are 0.

    Args:
      turns: of the skeleton. rotations: of the bodies in the ground.
    """
    zero = _einsum("fbij,bjk->fbik", rotations[:, _ABOVE], turns)
    relative = _einsum("fbji,fbjk->fbik", zero, rotations)
    angles = jnp.zeros((len(rotations), len(OWNER)))
    for count, solve in ((1, _closest), (2, _nearer), (3, _nearer)):
        bodies = np.flatnonzero(_AXIS_COUNT == count)[count == 3 :]  # not the pelvis
        numbers = np.stack([np.flatnonzero(OWNER == body) for body in bodies])
        values = solve(relative[:, bodies], AXES[numbers].squeeze(1) if count == 1 else numbers)
        angles = angles.at[:, numbers.ravel()].set(values.reshape(len(rotations), -1))
    low, high = LIMITS.astype(np.float32).T
    return jnp.clip(angles, low, high)


def _nearest(matrices: Float[Array, "F b 3 3"]) -> Float[Array, "F b 3 3"]:
    return nearest_rotation(matrices.reshape(-1, 3, 3)).reshape(matrices.shape)


def _closest(
    relative: Float[Array, "F b 3 3"], axes: Float[np.ndarray, "b 3"]
) -> Float[Array, "F b"]:
    """The angle about one axis, as in skeleton.closest_angle."""
    axes = np.asarray(axes, np.float32)
    skew = relative - jnp.swapaxes(relative, -1, -2)
    vector = jnp.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], -1)
    along = jnp.einsum("fbii->fb", relative) - _einsum("bi,fbij,bj->fb", axes, relative, axes)
    return jnp.arctan2(jnp.sum(vector * axes, -1), along)


def _nearer(
    relative: Float[Array, "F b 3 3"], numbers: Int[np.ndarray, "b n"]
) -> Float[Array, "F b n"]:
    """Of the two solutions of the sequences of the axes the one that exceeds the limits less."""
    count = numbers.shape[1]
    pair = both_sequences(relative, AXES[numbers])[..., :count]
    low, high = np.moveaxis(LIMITS[numbers].astype(np.float32), -1, 0)
    excess = jnp.maximum(low - pair, 0) + jnp.maximum(pair - high, 0)
    second = jnp.sum(excess[1], -1) < jnp.sum(excess[0], -1)
    return jnp.where(second[..., None], pair[1], pair[0])


def both_sequences(
    rotation: Float[Array, "*f 3 3"], axes: Float[np.ndarray, "*b n 3"]
) -> Float[Array, "2 *f 3"]:
    """The two solutions of R = Rot(a1, q1) Rot(a2, q2) Rot(a3, q3) of orthogonal axes, -pi..pi.

    In the axes themselves the entry (1, 3) is sin q2; the entries beside it give q1 and q3. The
    other solution is (q1 + pi, pi - q2, q3 + pi). Of two axes the third is their cross product.
    """
    own = np.asarray(axes, np.float32)
    if own.shape[-2] == 2:
        own = np.concatenate([own, np.cross(own[..., :1, :], own[..., 1:, :])], -2)
    hand = np.round(np.linalg.det(own)).astype(np.float32)[..., None]  # left-handed axes: -1
    r = _einsum("...ai,...ij,...bj->...ab", own, rotation, own)
    middle = jnp.arcsin(jnp.clip(r[..., 0, 2], -1, 1))
    first = jnp.arctan2(-r[..., 1, 2], r[..., 2, 2])
    last = jnp.arctan2(-r[..., 0, 1], r[..., 0, 0])
    one = hand * jnp.stack([first, middle, last], -1)
    wrap = lambda x: (x + jnp.pi) % (2 * jnp.pi) - jnp.pi
    return jnp.stack([one, wrap(jnp.array([1, -1, 1]) * one + jnp.pi)])

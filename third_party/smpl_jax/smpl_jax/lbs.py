"""Linear blend skinning as functions of plain arrays: skeleton, blend shapes, skinning.

After Loper et al., "SMPL: A Skinned Multi-Person Linear Model", SIGGRAPH Asia 2015. A vertex v of
the rest pose is its template plus blend shapes: linear functions of the shape coefficients and of
the entries of R - 1 of all joints. Forward kinematics (`pose_skeleton`) gives the motion
[R_j | t_j] of every joint; the posed vertex is sum_j w_j (R_j v + t_j) with its skinning weights w.

The layout is chosen for speed. Coordinates are planes, (3, V) instead of (V, 3), so that every
product runs over the long vertex axis. The blend shapes of shape and pose are one matrix product.
All products have full precision: with the default of TPUs and newer GPUs (bfloat16, TF32) the error
of vertices is millimetres.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from smpl_jax.rotations import compose, rotate

_PRECISION = jax.lax.Precision.HIGHEST
# Vertices of all bodies that a CPU deforms together: about 10 MB of blended motions.
_CPU_CHUNK = 240_000


def tree_levels(parents: tuple[int, ...]) -> list[list[int]]:
    """Joints grouped by their depth below the root; a level can be computed in one step."""
    depth: list[int] = []
    for parent in parents:
        depth.append(0 if parent < 0 else depth[parent] + 1)
    at = lambda level: [joint for joint, d in enumerate(depth) if d == level]
    return [at(level) for level in range(max(depth) + 1)]


def pose_skeleton(
    parents: tuple[int, ...],
    rest_joints: Float[Array, "*batch J 3"],
    rotmats: Float[Array, "*batch J 3 3"],
) -> tuple[Float[Array, "*batch J 3 3"], Float[Array, "*batch J 3"]]:
    """Forward kinematics: rotations relative to the parents -> world rotations and positions.

    Args:
      parents: the parent of each joint, -1 for the root; a parent comes before its children.
      rest_joints: joints in the rest pose, metres. Leading axes broadcast against those of rotmats.
      rotmats: rotation of each joint relative to its parent; the root's is relative to the world.

    Returns:
      World rotation and world position of each joint.
    """
    # 1. Level by level: R_world = R_parent R, and x_world = x_parent + R_parent (rest offset).
    levels = tree_levels(parents)
    root = jnp.array(levels[0])
    world_rotations, world_positions = [rotmats[..., root, :, :]], [rest_joints[..., root, :]]
    for above, level in zip(levels, levels[1:], strict=False):
        joints, up = jnp.array(level), jnp.array([parents[joint] for joint in level])
        slot = jnp.array([above.index(parents[joint]) for joint in level])
        parent, origin = world_rotations[-1][..., slot, :, :], world_positions[-1][..., slot, :]
        offset = rest_joints[..., joints, :] - rest_joints[..., up, :]
        world_rotations.append(compose(parent, rotmats[..., joints, :, :]))
        world_positions.append(origin + rotate(parent, offset))
    # 2. Join the levels, in the order of the joints.
    order = [joint for level in levels for joint in level]
    back = jnp.array([order.index(joint) for joint in range(len(order))])
    batch = jnp.broadcast_shapes(rotmats.shape[:-3], rest_joints.shape[:-2])
    gather = lambda parts, axis, tail: jnp.concatenate(
        [jnp.broadcast_to(part, (*batch, part.shape[axis], *tail)) for part in parts], axis
    )
    rotations, positions = gather(world_rotations, -3, (3, 3)), gather(world_positions, -2, (3,))
    return rotations[..., back, :, :], positions[..., back, :]


def deform(
    template: Float[Array, "3 V"],
    directions: Float[Array, "K 3 V"],
    weights: Float[Array, "J V"],
    features: Float[Array, "*batch K"],
    motions: Float[Array, "*batch J 3 4"],
) -> Float[Array, "*batch V 3"]:
    """Blend shapes, then skinning.

    Args:
      template: vertices of the mean shape.
      directions: displacement of the vertices for each feature.
      weights: skinning weights, the share of each joint's motion in that of a vertex.
      features: shape coefficients, then the entries of R - 1 of all joints but the root.
      motions: [R | t] of each joint, which maps points of the rest pose to the world. The same
        batch axes as features.
    """
    batch, vertices = features.shape[:-1], template.shape[-1]
    chunk = max(1, _CPU_CHUNK // max(1, vertices))
    whole = partial(_deform, template, directions, weights)
    if jax.default_backend() != "cpu" or math.prod(batch) <= chunk:
        return whole(features, motions)
    # A CPU is nearly twice as fast if the blended motions of a chunk fit into its cache; other
    # devices are faster without chunks.
    flat = features.reshape(-1, features.shape[-1]), motions.reshape(-1, *motions.shape[-3:])
    return jax.lax.map(lambda one: whole(*one), flat, batch_size=chunk).reshape(*batch, vertices, 3)


def _deform(
    template: Float[Array, "3 V"],
    directions: Float[Array, "K 3 V"],
    weights: Float[Array, "J V"],
    features: Float[Array, "*batch K"],
    motions: Float[Array, "*batch J 3 4"],
) -> Float[Array, "*batch V 3"]:
    # 1. Vertices of the rest pose. The template is added outside of the product: it is the largest
    # term, and keeps float32's full precision on any device.
    rest = template + jnp.einsum("...k,kcv->...cv", features, directions, precision=_PRECISION)
    x, y, z = rest[..., 0, :], rest[..., 1, :], rest[..., 2, :]
    # 2. The motion of each vertex, sum_j w_j [R_j | t_j].
    flat = motions.reshape(*motions.shape[:-2], 12)
    blended = jnp.einsum("...jk,jv->...kv", flat, weights, precision=_PRECISION)
    # 3. Apply it, plane by plane: a product of small matrices is four times slower on a CPU.
    row = lambda i: (
        blended[..., i, :] * x
        + blended[..., i + 1, :] * y
        + blended[..., i + 2, :] * z
        + blended[..., i + 3, :]
    )
    return jnp.stack([row(0), row(4), row(8)], axis=-1)


def pose_features(
    betas: Float[Array, "*batch S"], rotmats: Float[Array, "*batch J 3 3"]
) -> Float[Array, "*batch K"]:
    """The shape coefficients, then the entries of R - 1 of all joints but the root.

    K = S + 9 (J - 1). Batch axes broadcast.
    """
    batch = jnp.broadcast_shapes(betas.shape[:-1], rotmats.shape[:-3])
    pose = rotmats[..., 1:, :, :] - jnp.eye(3, dtype=rotmats.dtype)
    pose = pose.reshape(*rotmats.shape[:-3], -1)
    parts = [jnp.broadcast_to(part, (*batch, part.shape[-1])) for part in (betas, pose)]
    return jnp.concatenate(parts, axis=-1)


def rest_to_world(
    rest_joints: Float[Array, "*batch J 3"],
    world_rotations: Float[Array, "*batch J 3 3"],
    world_positions: Float[Array, "*batch J 3"],
) -> Float[Array, "*batch J 3 4"]:
    """[R | t] of each joint, which maps points of the rest pose to the world; axes broadcast."""
    offsets = world_positions - rotate(world_rotations, rest_joints)
    return jnp.concatenate([world_rotations, offsets[..., None]], axis=-1)

"""Linear blend skinning: the skeleton, the blend shapes and the skinning, as functions of plain arrays.

After Loper et al., "SMPL: A Skinned Multi-Person Linear Model", SIGGRAPH Asia 2015.

The layout is chosen for speed. Coordinates are planes, (..., 3, V) instead of (..., V, 3): every product then runs over the long vertex
axis. Shape and pose blend shapes are one matrix product. And all products ask for full precision, because the default of TPUs and newer
GPUs (bfloat16, TF32) moves vertices by millimetres.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from smpl_jax.rotations import compose, rotate

_PRECISION = jax.lax.Precision.HIGHEST


def tree_levels(parents: tuple[int, ...]) -> list[list[int]]:
    """Joints grouped by their distance from the root, so that a whole level can be computed at once."""
    depth: list[int] = []
    for parent in parents:
        depth.append(0 if parent < 0 else depth[parent] + 1)
    return [[joint for joint, d in enumerate(depth) if d == level] for level in range(max(depth) + 1)]


def pose_skeleton(
    parents: tuple[int, ...], rest_joints: Float[Array, "*batch J 3"], rotmats: Float[Array, "*batch J 3 3"]
) -> tuple[Float[Array, "*batch J 3 3"], Float[Array, "*batch J 3"]]:
    """Forward kinematics.

    Args:
      parents: the parent of each joint, -1 for the root; a parent comes before its children.
      rest_joints: joints in the rest pose, metres. Leading axes broadcast against those of rotmats.
      rotmats: rotation of each joint relative to its parent; the root's is relative to the world.

    Returns:
      World rotation and world position of each joint.
    """
    levels = tree_levels(parents)
    root = jnp.array(levels[0])
    world_rotations, world_positions = [rotmats[..., root, :, :]], [rest_joints[..., root, :]]
    for above, level in zip(levels, levels[1:], strict=False):
        joints, up = jnp.array(level), jnp.array([parents[joint] for joint in level])
        slot = jnp.array([above.index(parents[joint]) for joint in level])
        turn, origin = world_rotations[-1][..., slot, :, :], world_positions[-1][..., slot, :]
        world_rotations.append(compose(turn, rotmats[..., joints, :, :]))
        world_positions.append(origin + rotate(turn, rest_joints[..., joints, :] - rest_joints[..., up, :]))
    order = [joint for level in levels for joint in level]
    back = jnp.array([order.index(joint) for joint in range(len(order))])
    batch = jnp.broadcast_shapes(rotmats.shape[:-3], rest_joints.shape[:-2])
    gather = lambda parts, axis, tail: jnp.concatenate(  # noqa: E731
        [jnp.broadcast_to(part, (*batch, part.shape[axis], *tail)) for part in parts], axis
    )
    return gather(world_rotations, -3, (3, 3))[..., back, :, :], gather(world_positions, -2, (3,))[..., back, :]


def blend_shapes(
    template: Float[Array, "3 V"], directions: Float[Array, "K 3 V"], betas: Float[Array, "*batch S"], rotmats: Float[Array, "*batch J 3 3"]
) -> Float[Array, "*batch 3 V"]:
    """Vertices in the rest pose with the shape's and the pose's corrections, K = S + 9 (J - 1). The batch axes must be equal."""
    pose_feature = (rotmats[..., 1:, :, :] - jnp.eye(3, dtype=rotmats.dtype)).reshape(*rotmats.shape[:-3], -1)
    features = jnp.concatenate([betas, pose_feature], axis=-1)
    # The template is added outside of the product: it is the largest term, and keeps float32's full precision on any device.
    return template + jnp.einsum("...k,kcv->...cv", features, directions, precision=_PRECISION)


def skin(
    rest_vertices: Float[Array, "*batch 3 V"],
    rest_joints: Float[Array, "*batch J 3"],
    world_rotations: Float[Array, "*batch J 3 3"],
    world_positions: Float[Array, "*batch J 3"],
    weights: Float[Array, "J V"],
) -> Float[Array, "*batch 3 V"]:
    """Moves every vertex by the weighted mean of its joints' rigid motions."""
    offsets = world_positions - rotate(world_rotations, rest_joints)
    motions = jnp.concatenate([world_rotations, offsets[..., None]], axis=-1)
    blended = jnp.einsum("...jab,jv->...abv", motions, weights, precision=_PRECISION)
    return jnp.sum(blended[..., :3, :] * rest_vertices[..., None, :, :], axis=-2) + blended[..., 3, :]

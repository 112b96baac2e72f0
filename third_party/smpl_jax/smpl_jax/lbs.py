"""Linear blend skinning as functions of plain arrays: skeleton, blend shapes, skinning.

After Loper et al., "SMPL: A Skinned Multi-Person Linear Model", SIGGRAPH Asia 2015. A vertex v of
the rest pose is its template plus blend shapes: linear functions of the shape coefficients and of
the entries of R - 1 of all joints. Forward kinematics (`pose_skeleton`) gives the motion
[R_j | t_j] of every joint; the posed vertex is sum_j w_j (R_j v + t_j) with its skinning weights w.

The layout is chosen for speed. The mesh is cut into blocks of consecutive vertices, and a block
keeps only the joints that act on it (`Blocks`): a vertex has about four weights, and neighbours
share them. Within a block, coordinates are planes, (3, L) instead of (L, 3), so that every product
runs over the long vertex axis, and the blend shapes of shape and pose are one matrix product. All
products have full precision: with the default of TPUs and newer GPUs (bfloat16, TF32) the error of
vertices is millimetres.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from smpl_jax.rotations import rotate

_PRECISION = jax.lax.Precision.HIGHEST
# Vertices of a block: the lanes of a TPU, and few joints (at most 10 of the free body).
_BLOCK = 128
# What a CPU deforms together: this many bodies, and this many vertices of all of them, whose
# blended motions are about 1 MB.
_CPU_BODIES, _CPU_VERTICES = 64, 20_000


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Blocks:
    """Blend shapes and skinning weights by blocks of consecutive vertices, without their zeros.

    There are N blocks of L vertices; zeros fill the last one. All blocks have the same numbers of
    joints, A whose pose displaces a vertex of the block and W that have weights in it: the largest
    that a block needs. If there are fewer, the index is -1 and the numbers are zero.

    Attributes:
      directions: displacement of the coordinates (3, L) for each feature: S of the shape, then 9
        for each of the A joints.
      weights: skinning weights of the W joints.
      pose_joints: the A joints, counted without the root.
      weight_joints: the W joints.
    """

    directions: Float[Array, "N S+9*A 3*L"]
    weights: Float[Array, "N W L"]
    pose_joints: Int[Array, "N A"]
    weight_joints: Int[Array, "N W"]

    @property
    def shapes(self) -> int:
        """S, the number of shape directions."""
        return self.directions.shape[-2] - 9 * self.pose_joints.shape[-1]


def make_blocks(
    directions: Float[np.ndarray, "S+9*(J-1) 3 V"], weights: Float[np.ndarray, "J V"]
) -> Blocks:
    """The blocks of dense tables, with NumPy; exact, for any number of weights a vertex."""
    directions, weights = np.asarray(directions, np.float32), np.asarray(weights, np.float32)
    joints, vertices = weights.shape
    length = max(1, min(_BLOCK, vertices))
    number = max(1, -(-vertices // length))
    fill = lambda array: np.pad(
        array, [(0, 0)] * (array.ndim - 1) + [(0, number * length - vertices)]
    )
    # 1. By block: (N, S, 3, L) of the shape, (N, J - 1, 9, 3, L) of the pose, and (N, J, L).
    directions = np.moveaxis(fill(directions).reshape(-1, 3, number, length), 2, 0)
    shape, pose = np.split(directions, [len(directions[0]) - 9 * (joints - 1)], axis=1)
    pose = pose.reshape(number, joints - 1, 9, 3, length)
    weights = np.moveaxis(fill(weights).reshape(joints, number, length), 1, 0)
    # 2. The joints with a number that is not zero come first in the order of each block.
    pose_joints = _used(np.any(pose, axis=(2, 3, 4)))
    weight_joints = _used(np.any(weights, axis=2))
    rows = np.arange(number)[:, None]
    pose = pose[rows, pose_joints] * (pose_joints >= 0)[..., None, None, None]
    weights = weights[rows, weight_joints] * (weight_joints >= 0)[..., None]
    directions = np.concatenate([shape, pose.reshape(number, -1, 3, length)], axis=1)
    to_jax = lambda array: jax.device_put(np.ascontiguousarray(array))
    return Blocks(
        to_jax(directions.reshape(number, -1, 3 * length)),
        to_jax(weights),
        to_jax(pose_joints),
        to_jax(weight_joints),
    )


def _used(used: np.ndarray) -> Int[np.ndarray, "N most"]:
    """The indices of the true entries of each row, then -1."""
    most = max(1, int(used.sum(axis=1).max()))
    order = np.argsort(~used, axis=1, kind="stable")[:, :most]
    return np.where(np.take_along_axis(used, order, axis=1), order, -1).astype(np.int32)


def dense_tables(
    blocks: Blocks, joints: int, vertices: int
) -> tuple[Float[np.ndarray, "K 3 V"], Float[np.ndarray, "J V"]]:
    """Directions and weights as dense tables, the inverse of `make_blocks`; not inside `jit`."""
    blocks = jax.tree.map(np.asarray, blocks)
    number, _, length = blocks.weights.shape
    # The index -1 falls on a last row, which is cut off.
    weights = np.zeros((number, joints + 1, length), np.float32)
    rows = np.arange(number)[:, None]
    weights[rows, blocks.weight_joints] = blocks.weights
    shape, found = np.split(
        blocks.directions.reshape(number, -1, 3, length), [blocks.shapes], axis=1
    )
    pose = np.zeros((number, joints, 9, 3, length), np.float32)
    pose[rows, blocks.pose_joints] = found.reshape(number, -1, 9, 3, length)
    pose = pose[:, : joints - 1].reshape(number, -1, 3, length)
    join = lambda array: np.moveaxis(array, 0, -2).reshape(*array.shape[1:-1], -1)[..., :vertices]
    return join(np.concatenate([shape, pose], axis=1)), join(weights[:, :joints])


def vertex_tables(
    blocks: Blocks, joints: int, index: Int[Array, "*n"]
) -> tuple[Float[Array, "*n S 3"], Float[Array, "*n J"]]:
    """The shape directions and the skinning weights of single vertices; also inside `jit`."""
    number, _, length = blocks.weights.shape
    block, at = index // length, index % length
    directions = blocks.directions.reshape(number, -1, 3, length)[:, : blocks.shapes]
    is_joint = blocks.weight_joints[block][..., None] == jnp.arange(joints)
    weights = jnp.sum(blocks.weights[block, :, at][..., None] * is_joint, -2)
    return directions[block, :, :, at], weights


def _ancestors(parents: tuple[int, ...]) -> list[Float[np.ndarray, "J J"]]:
    """For the distances 1, 2, 4, ...: 1 at [j, i] if i is the ancestor of j at this distance."""
    step = np.zeros((len(parents), len(parents)), np.float32)
    for joint, parent in enumerate(parents):
        if parent >= 0:
            step[joint, parent] = 1.0
    steps = []
    while step.any():
        steps.append(step)
        step = step @ step
    return steps


def pose_skeleton(
    parents: tuple[int, ...],
    rest_joints: Float[Array, "*batch J 3"],
    rotmats: Float[Array, "*batch J 3 3"],
) -> tuple[Float[Array, "*batch J 3 3"], Float[Array, "*batch J 3"]]:
    """Forward kinematics: rotations relative to the parents -> world rotations and positions.

    The motion of a joint is the product of the motions on its path from the root. As in a parallel
    prefix sum (Hillis and Steele 1986), step s multiplies every joint's product of 2^s motions by
    that of its ancestor at the distance 2^s: 4 steps for SMPL, whose paths have up to 9 joints.
    Ancestors are selected by products with 0 and 1: their transpose is such a product, too, and no
    scatter.

    Args:
      parents: the parent of each joint, -1 for the root; a parent comes before its children.
      rest_joints: joints in the rest pose, metres. Leading axes broadcast against those of rotmats.
      rotmats: rotation of each joint relative to its parent; the root's is relative to the world.

    Returns:
      World rotation and world position of each joint.
    """
    # 1. The motion [R | t] of each joint relative to its parent: its rotation and its rest offset.
    # Bodies are the last axis, over which a CPU computes 16 numbers at once.
    steps = _ancestors(parents)
    batch = jnp.broadcast_shapes(rotmats.shape[:-3], rest_joints.shape[:-2])
    last = lambda x, tail: jnp.moveaxis(
        jnp.broadcast_to(x, (*batch, *tail)).reshape(-1, *tail), 0, -1
    )
    joints = len(parents)
    offsets = last(rest_joints, (joints, 3))
    if steps:
        offsets = offsets - _combine(steps[0], offsets)
    motions = jnp.concatenate([last(rotmats, (joints, 3, 3)), offsets[:, :, None]], axis=2)
    for step in steps:
        # 2. The product of the ancestor at this distance; the identity where there is none.
        none = (step.sum(1) == 0)[:, None, None, None] * np.eye(3, 4)[..., None]
        columns = jnp.split(_combine(step, motions) + none.astype(motions.dtype), 4, axis=2)
        # 3. [R_above R | R_above t + t_above], as a sum of columns times rows.
        rows = [
            *jnp.split(motions, 3, axis=1),
            np.eye(4, dtype=motions.dtype)[None, None, 3, :, None],
        ]
        motions = sum(column * row for column, row in zip(columns, rows, strict=True))
    motions = jnp.moveaxis(motions, -1, 0).reshape(*batch, joints, 3, 4)
    return motions[..., :3], motions[..., 3]


def _combine(
    matrix: Float[Array, "I J"], values: Float[Array, "J *rest"]
) -> Float[Array, "I *rest"]:
    """The sums over j of matrix_ij values_j. With 0 and 1, exact."""
    return jnp.einsum("ij,j...->i...", matrix, values, precision=_PRECISION)


def deform(
    template: Float[Array, "3 V"],
    blocks: Blocks,
    features: Float[Array, "*batch K"],
    motions: Float[Array, "*batch J 3 4"],
) -> Float[Array, "*batch V 3"]:
    """Blend shapes, then skinning.

    The backward pass computes the vertices of the rest pose and their motions again, block by
    block: that is cheaper than to store them.

    Args:
      template: vertices of the mean shape.
      blocks: displacements of the vertices for each feature, and skinning weights.
      features: shape coefficients, then the entries of R - 1 of all joints but the root.
      motions: [R | t] of each joint, which maps points of the rest pose to the world. The same
        batch axes as features.
    """
    batch, number, length = features.shape[:-1], len(blocks.weights), blocks.weights.shape[-1]
    bodies = math.prod(batch)
    features, motions = features.reshape(bodies, -1), motions.reshape(bodies, -1, 12)
    arguments = (template, blocks), features, motions
    if bodies * number * length <= _CPU_VERTICES:
        posed = _deform(number, _blend_together, *arguments)
    else:
        # A CPU is fastest if all that it computes from a block fits into its cache. The bandwidth
        # of memory bounds other devices: they compute all blocks at once.
        at_once = partial(_deform, number, _blend_apart)
        on_cpu = partial(_deform_on_cpu, _CPU_BODIES, _CPU_VERTICES)
        posed = jax.lax.platform_dependent(*arguments, cpu=on_cpu, default=at_once)
    return posed.reshape(*batch, template.shape[-1], 3)


def _deform_on_cpu(
    most_bodies: int,
    most_vertices: int,
    mesh: tuple[Float[Array, "3 V"], Blocks],
    features: Float[Array, "B K"],
    motions: Float[Array, "B J 12"],
) -> Float[Array, "B V 3"]:
    """As many bodies and blocks at a time as fit into the cache."""
    (bodies, _), (number, _, length) = features.shape, mesh[1].weights.shape
    turns = -(-bodies // most_bodies)
    size = -(-bodies // turns)
    fitting = max(1, most_vertices // (size * length))
    together = max(n for n in range(1, number + 1) if number % n == 0 and n <= fitting)
    if turns == 1:
        return _deform(together, _blend_together, mesh, features, motions)
    fill = lambda x: jnp.pad(x, [(0, turns * size - bodies)] + [(0, 0)] * (x.ndim - 1))
    chunks = [fill(x).reshape(turns, size, *x.shape[1:]) for x in (features, motions)]
    posed = jax.lax.map(lambda chunk: _deform(together, _blend_together, mesh, *chunk), chunks)
    return posed.reshape(turns * size, *posed.shape[2:])[:bodies]


def _deform(
    together: int,
    blend: Callable[[Array, Array], list[Array]],
    mesh: tuple[Float[Array, "3 V"], Blocks],
    features: Float[Array, "B K"],
    motions: Float[Array, "B J 12"],
) -> Float[Array, "B V 3"]:
    template, blocks = mesh
    (bodies, joints, _), (number, _, length) = motions.shape, blocks.weights.shape
    vertices = template.shape[-1]
    # 1. The features and motions of each block: products of the joints' with 0 and 1 (0 at -1).
    shape, pose = features[:, : blocks.shapes].T, features[:, blocks.shapes :].T
    chosen = lambda index, count: (index[..., None] == jnp.arange(count)).astype(features.dtype)
    select = lambda index, values: _combine(
        chosen(index, len(values)).reshape(-1, len(values)), values
    )
    pose = select(blocks.pose_joints, pose.reshape(joints - 1, 9, bodies))
    shape = jnp.broadcast_to(shape, (number, *shape.shape))
    of_block = jnp.concatenate([shape, pose.reshape(number, -1, bodies)], axis=1)
    moved = select(blocks.weight_joints, jnp.moveaxis(motions, 0, -1))
    moved = moved.reshape(number, -1, 12, bodies)
    filled = jnp.pad(template, ((0, 0), (0, number * length - vertices)))
    rest = jnp.swapaxes(filled.reshape(3, number, length), 0, 1).reshape(number, 3 * length)
    # 2. The blocks, `together` at a time.
    one = jax.checkpoint(partial(_deform_block, blend))
    whole = rest, blocks.directions, blocks.weights, of_block, moved
    if together == number:
        posed = jax.vmap(one)(*whole)
    else:
        size = together if together > 1 else None  # without an axis of length 1
        posed = jax.lax.map(lambda block: one(*block), whole, batch_size=size)
    # 3. In the order of the vertices; the filling is cut off in rows of memory.
    posed = jnp.swapaxes(posed, 0, 1).reshape(bodies, -1)[:, : 3 * vertices]
    return posed.reshape(bodies, vertices, 3)


def _deform_block(
    blend: Callable[[Array, Array], list[Array]],
    template: Float[Array, "3*L"],
    directions: Float[Array, "F 3*L"],
    weights: Float[Array, "W L"],
    features: Float[Array, "F B"],
    motions: Float[Array, "W 12 B"],
) -> Float[Array, "B L 3"]:
    # 1. Vertices of the rest pose. The template is added outside of the product: it is the largest
    # term, and keeps float32's full precision on any device. The transpose of a split is one
    # concatenation; that of slices would be a sum of padded arrays.
    rest = template + jnp.einsum("bf,fv->bv", features.T, directions, precision=_PRECISION)
    x, y, z = jnp.split(rest, 3, axis=-1)
    # 2. The motion of each vertex, sum_j w_j [R_j | t_j].
    entries = blend(motions, weights)
    # 3. Apply it, plane by plane: a product of small matrices is four times slower on a CPU.
    row = lambda i: entries[i] * x + entries[i + 1] * y + entries[i + 2] * z + entries[i + 3]
    return jnp.stack([row(0), row(4), row(8)], axis=-1)


def _blend_together(
    motions: Float[Array, "W 12 B"], weights: Float[Array, "W L"]
) -> list[Float[Array, "B L"]]:
    """The 12 entries of all vertices' motions, as one product."""
    blended = jnp.einsum("biw,wv->biv", motions.T, weights, precision=_PRECISION)
    return jnp.split(blended.reshape(len(blended), -1), 12, axis=-1)


def _blend_apart(
    motions: Float[Array, "W 12 B"], weights: Float[Array, "W L"]
) -> list[Float[Array, "B L"]]:
    """The same as sums, which the compiler computes where they are applied and never stores."""
    return [_blend_entry(motions[:, entry], weights) for entry in range(12)]


@jax.custom_jvp
@jax.jit
def _blend_entry(motions: Float[Array, "W B"], weights: Float[Array, "W L"]) -> Float[Array, "B L"]:
    """The product of two matrices as a sum; its derivatives are products."""
    return sum(motions[joint, :, None] * weights[joint] for joint in range(len(weights)))


@_blend_entry.defjvp
def _blend_entry_jvp(
    primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    product = partial(jnp.einsum, "wb,wv->bv", precision=_PRECISION)
    (motions, weights), (motions_dot, weights_dot) = primals, tangents
    slope = product(motions_dot, weights) + product(motions, weights_dot)
    return _blend_entry(motions, weights), slope


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

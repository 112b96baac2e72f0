"""Linear blend skinning as functions of plain arrays: skeleton, blend shapes, skinning.

After Loper et al., "SMPL: A Skinned Multi-Person Linear Model", SIGGRAPH Asia 2015. A vertex v of
the rest pose is its template plus blend shapes: linear functions of the shape coefficients and of
the entries of R - 1 of all joints. Forward kinematics (`pose_skeleton`) gives the motion
[R_j | t_j] of every joint; the posed vertex is sum_j w_j (R_j v + t_j) with its skinning weights w.

The layout is chosen for speed. The mesh is cut into blocks of consecutive vertices, and a block
keeps only the joints that act on it (blocks.py). The blend shapes of shape and pose are one product
for each coordinate. The blended motions are sums, which the compiler computes where they are
applied and never stores. All products have full precision: with the default of TPUs and newer GPUs
(bfloat16, TF32) the error of vertices is millimetres.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from smpl_jax.blocks import Blocks
from smpl_jax.rotations import rotate

_PRECISION = jax.lax.Precision.HIGHEST
# Vertices of all bodies: a CPU computes so few at once, and at most so many at a time. The planes
# of the latter take 5 MB, which stay in the cache.
_CPU_SMALL, _CPU_VERTICES = 5_000, 450_000
# Up to so many vertices of a group, motions are blended by a product: a program of half the size.
_FEW_VERTICES = 1_024


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
    last_row = np.zeros((joints, 1, 4, 1), motions.dtype)
    last_row[:, :, 3] = 1.0
    last_row = jnp.broadcast_to(last_row, (joints, 1, 4, motions.shape[-1]))
    for step in steps:
        # 2. The motion of the ancestor at this distance; the identity where there is none.
        none = (step.sum(1) == 0)[:, None, None, None] * np.eye(3, 4)[..., None]
        above = _combine(step, motions) + none.astype(motions.dtype)
        # 3. [R_above R | R_above t + t_above]. A sum of products, because products of small
        # matrices are slow on a CPU; one sum, because a sum for each column is a larger program.
        square = jnp.concatenate([motions, last_row], axis=1)
        motions = jnp.sum(above[:, :, :, None] * square[:, None], axis=2)
    motions = jnp.moveaxis(motions, -1, 0).reshape(*batch, joints, 3, 4)
    return motions[..., :3], motions[..., 3]


def _combine(
    matrix: Float[Array, "I J"], values: Float[Array, "J *rest"]
) -> Float[Array, "I *rest"]:
    """The sums over j of matrix_ij values_j. With 0 and 1, exact."""
    return jnp.einsum("ij,j...->i...", matrix, values, precision=_PRECISION)


def deform(
    template: Float[Array, "3 V"],
    blocks: tuple[Blocks, ...],
    features: Float[Array, "*batch K"],
    motions: Float[Array, "*batch J 3 4"],
) -> Float[Array, "*batch V 3"]:
    """Blend shapes, then skinning.

    The backward pass computes the vertices of the rest pose and their motions again: that is
    cheaper than to store them.

    Args:
      template: vertices of the mean shape.
      blocks: displacements of the vertices for each feature, and skinning weights.
      features: shape coefficients, then the entries of R - 1 of all joints but the root.
      motions: [R | t] of each joint, which maps points of the rest pose to the world. The same
        batch axes as features.
    """
    batch = features.shape[:-1]
    bodies = math.prod(batch)
    features, motions = (x.reshape(bodies, *x.shape[len(batch) :]) for x in (features, motions))
    arguments = (template, blocks), features, motions
    at_once = partial(_deform, 1, _rows)
    if bodies * template.shape[-1] <= _CPU_SMALL:
        posed = at_once(*arguments)
    else:
        # The bandwidth of memory bounds other devices than CPUs: they compute all bodies at once.
        posed = jax.lax.platform_dependent(*arguments, cpu=_deform_on_cpu, default=at_once)
    return posed.reshape(*batch, template.shape[-1], 3)


@jax.custom_jvp
def _deform_on_cpu(
    mesh: tuple[Float[Array, "3 V"], tuple[Blocks, ...]],
    features: Float[Array, "B K"],
    motions: Float[Array, "B J 3 4"],
) -> Float[Array, "B V 3"]:
    """As many bodies at a time as fit into the cache; without derivatives, one row at a time."""
    turns = _turns(len(features), mesh[0].shape[-1])
    return _deform(turns, _rows_by_loop, mesh, features, motions)


@_deform_on_cpu.defjvp
def _deform_on_cpu_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    # The backward pass holds about four times as much of a body.
    turns = _turns(len(primals[1]), 4 * primals[0][0].shape[-1])
    return jax.jvp(partial(_deform, turns, _rows), primals, tangents)


def _turns(bodies: int, vertices: int) -> int:
    """How often a CPU computes bodies of so many vertices: a divisor of their number, if near.

    Then no turn needs filling, for which bodies would have to move between devices.
    """
    least = min(bodies, -(-bodies * vertices // _CPU_VERTICES))
    return next((turns for turns in range(least, 2 * least) if bodies % turns == 0), least)


def _deform(
    turns: int,
    rows: Callable[..., list[list[Float[Array, "n B L"]]]],
    mesh: tuple[Float[Array, "3 V"], tuple[Blocks, ...]],
    features: Float[Array, "B K"],
    motions: Float[Array, "B J 3 4"],
) -> Float[Array, "B V 3"]:
    """The bodies in so many turns; `rows` is `_rows` or `_rows_by_loop`."""
    template, blocks = mesh
    bodies, vertices, length = len(features), template.shape[-1], blocks[0].weights.shape[-1]
    number = sum(len(group.places) for group in blocks)
    # 1. The template by blocks. Bodies as the last axis, over which a CPU computes 16 numbers at
    # once. A turn takes every turns-th body: bodies that are split over devices stay there.
    filled = jnp.pad(template, ((0, 0), (0, number * length - vertices)))
    rest = [filled.reshape(3, number, length)[:, group.places, :] for group in blocks]
    size = -(-bodies // turns)
    fill = lambda x: jnp.pad(x, [(0, turns * size - bodies)] + [(0, 0)] * (x.ndim - 1))
    last = lambda x: jnp.moveaxis(fill(x).reshape(size, turns, *x.shape[1:]), 0, -1)
    # 2. Three planes (turns, n, size, L) of each group.
    turn = jax.checkpoint(
        lambda features, motions: rows(
            blocks,
            [_rest(*group, features) for group in zip(rest, blocks, strict=True)],
            [_select(group.weight_joints, motions) for group in blocks],
        )
    )
    of_turns = last(features), last(motions)
    if turns == 1:
        planes = jax.tree.map(lambda x: x[None], turn(*(x[0] for x in of_turns)))
    else:
        planes = jax.lax.map(lambda of_turn: turn(*of_turn), of_turns)
    # 3. In the order of the mesh, coordinates last; the filling is cut off in rows of memory.
    places = tuple(group.places for group in blocks)
    in_order = [_in_order(places, plane) for plane in planes]
    posed = jnp.transpose(jnp.stack(in_order, axis=-1), (2, 0, 1, 3, 4))
    posed = posed.reshape(turns * size, -1)[:bodies, : 3 * vertices]
    return posed.reshape(bodies, vertices, 3)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _in_order(
    places: tuple[tuple[int, ...], ...], planes: tuple[Float[Array, "T n B L"], ...]
) -> Float[Array, "T N B L"]:
    """The planes of all groups in the order of the mesh.

    A CPU is fastest with a selection by index. The transpose of one is a scatter, which takes it
    ten times as long. So the derivative joins runs of blocks that are neighbours in both orders:
    the transpose of a split is one concatenation.
    """
    order = np.argsort([place for group in places for place in group])
    return jnp.concatenate(planes, axis=1)[:, order]


@_in_order.defjvp
def _in_order_jvp(
    places: tuple[tuple[int, ...], ...], primals: tuple[tuple], tangents: tuple[tuple]
) -> tuple[Array, Array]:
    runs = {}
    for group, plane in zip(places, *tangents, strict=True):
        cuts = [i for i in range(1, len(group)) if group[i - 1] + 1 < group[i]]
        starts = [group[i] for i in (0, *cuts)]
        runs |= dict(zip(starts, jnp.split(plane, cuts, axis=1), strict=True))
    slope = jnp.concatenate([runs[start] for start in sorted(runs)], axis=1)
    return _in_order(places, *primals), slope


def _rest(
    template: Float[Array, "3 n L"], blocks: Blocks, features: Float[Array, "K B"]
) -> tuple[Float[Array, "n B L"], ...]:
    """The planes x, y, z of a group's vertices in the rest pose."""
    number, bodies = len(blocks.places), features.shape[-1]
    pose = features[blocks.shapes :].reshape(-1, 9, bodies)
    pose = _select(blocks.pose_joints, pose).reshape(number, -1, bodies)
    shape = jnp.broadcast_to(features[: blocks.shapes], (number, blocks.shapes, bodies))
    of_block = jnp.concatenate([shape, pose], axis=1)
    product = partial(jnp.einsum, "nfb,nfv->nbv", of_block, precision=_PRECISION)
    # The template is added outside of the product: it is the largest term, and keeps float32's full
    # precision on any device.
    return tuple(
        plane[:, None] + product(directions)
        for plane, directions in zip(template, blocks.directions, strict=True)
    )


def _rows(
    blocks: tuple[Blocks, ...],
    rest: list[tuple[Float[Array, "n B L"], ...]],
    motions: list[Float[Array, "n W 3 4 B"]],
) -> list[list[Float[Array, "n B L"]]]:
    """The planes x, y, z of all groups' posed vertices."""
    row = partial(_row, blocks, rest)
    return [row([motion[:, :, axis] for motion in motions]) for axis in range(3)]


def _rows_by_loop(
    blocks: tuple[Blocks, ...],
    rest: list[tuple[Float[Array, "n B L"], ...]],
    motions: list[Float[Array, "n W 3 4 B"]],
) -> list[list[Float[Array, "n B L"]]]:
    """The same by a loop.

    Its end keeps XLA from computing the sums where coordinates are interleaved. There a CPU would
    not use its vector units.
    """
    first = [jnp.moveaxis(motion, 2, 0) for motion in motions]
    planes = jax.lax.map(partial(_row, blocks, rest), first)
    return [[plane[axis] for plane in planes] for axis in range(3)]


def _row(
    blocks: tuple[Blocks, ...],
    rest: list[tuple[Float[Array, "n B L"], ...]],
    motions: list[Float[Array, "n W 4 B"]],
) -> list[Float[Array, "n B L"]]:
    """One coordinate of all groups: a row of sum_j w_j [R_j | t_j] times the rest vertex.

    Plane by plane: a product of small matrices is four times slower on a CPU.
    """
    planes = []
    for group, xyz, motion in zip(blocks, rest, motions, strict=True):
        number, _, length = group.weights.shape
        if number * length <= _FEW_VERTICES:
            blend = partial(jnp.einsum, "nwcb,nwv->cnbv", precision=_PRECISION)
            entries = list(blend(motion, group.weights))
        else:
            entries = [_blend_entry(motion[:, :, column], group.weights) for column in range(4)]
        planes.append(sum(map(jnp.multiply, entries[:3], xyz)) + entries[3])
    return planes


@jax.custom_jvp
def _select(index: Int[Array, "n A"], values: Float[Array, "J *rest"]) -> Float[Array, "n A *rest"]:
    """The values of the joints of each block; of any joint where the index is -1.

    Its derivative is a product with 0 and 1, whose transpose is one, too, and no scatter.
    """
    return values[index]


@_select.defjvp
def _select_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (index, values), (_, slope) = primals, tangents
    chosen = (index % len(values))[..., None] == jnp.arange(len(values))
    chosen = chosen.reshape(-1, len(values)).astype(values.dtype)
    return _select(index, values), _combine(chosen, slope).reshape(*index.shape, *slope.shape[1:])


@jax.custom_jvp
@jax.jit
def _blend_entry(
    motions: Float[Array, "n W B"], weights: Float[Array, "n W L"]
) -> Float[Array, "n B L"]:
    """The product of two matrices of each block as a sum; its derivatives are products."""
    joints = range(weights.shape[1])
    return sum(motions[:, joint, :, None] * weights[:, joint, None, :] for joint in joints)


@_blend_entry.defjvp
def _blend_entry_jvp(
    primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    product = partial(jnp.einsum, "nwb,nwv->nbv", precision=_PRECISION)
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

"""Blend shapes and skinning weights of a mesh by blocks of vertices, without their zeros.

A block is a run of consecutive vertices. Few joints act on it: a vertex has about four weights, and
neighbours share them. Blocks that need about as many joints form a group, whose tables are arrays.
Coordinates are planes, one for each of x, y and z, so that every product runs over the long vertex
axis.
"""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

# Vertices of a block: the lanes of a TPU, and few joints (at most 10 of the free body).
_BLOCK = 128
# Groups of a mesh. More of them hold fewer zeros, and are more operations.
_GROUPS = 3


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Blocks:
    """One group: N blocks of L vertices.

    All of its blocks have the same numbers of joints, A whose pose displaces a vertex of the block
    and W that have weights in it: the largest that a block needs. If there are fewer, the index is
    -1 and the numbers are zero. Zeros fill the mesh's last block.

    Attributes:
      directions: displacement of each coordinate x, y, z for each feature: S of the shape, then 9
        for each of the A joints.
      weights: skinning weights of the W joints.
      pose_joints: the A joints, counted without the root.
      weight_joints: the W joints.
      places: where each block is in the mesh, ascending.
    """

    directions: tuple[
        Float[Array, "N S+9*A L"], Float[Array, "N S+9*A L"], Float[Array, "N S+9*A L"]
    ]
    weights: Float[Array, "N W L"]
    pose_joints: Int[Array, "N A"]
    weight_joints: Int[Array, "N W"]
    places: tuple[int, ...] = field(metadata={"static": True})

    @property
    def shapes(self) -> int:
        """S, the number of shape directions."""
        return self.directions[0].shape[-2] - 9 * self.pose_joints.shape[-1]


def make_blocks(
    directions: Float[np.ndarray, "S+9*(J-1) 3 V"], weights: Float[np.ndarray, "J V"]
) -> tuple[Blocks, ...]:
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
    # 2. The joints with a number that is not zero. Those of a group are arrays of one shape.
    posed, weighted = np.any(pose, axis=(2, 3, 4)), np.any(weights, axis=2)
    groups = []
    for places in _groups(posed.sum(axis=1), weighted.sum(axis=1)):
        pose_joints, weight_joints = _used(posed[places]), _used(weighted[places])
        rows = places[:, None]
        of_pose = pose[rows, pose_joints] * (pose_joints >= 0)[..., None, None, None]
        of_pose = of_pose.reshape(len(places), -1, 3, length)
        of_all = np.concatenate([shape[places], of_pose], axis=1)
        of_weights = weights[rows, weight_joints] * (weight_joints >= 0)[..., None]
        to_jax = lambda array: jax.device_put(np.ascontiguousarray(array))
        groups.append(
            Blocks(
                tuple(to_jax(of_all[:, :, axis]) for axis in range(3)),
                to_jax(of_weights),
                to_jax(pose_joints),
                to_jax(weight_joints),
                tuple(int(place) for place in places),
            )
        )
    return tuple(groups)


def _groups(
    posed: Int[np.ndarray, "N"], weighted: Int[np.ndarray, "N"]
) -> list[Int[np.ndarray, "n"]]:
    """The blocks of each group: of all ways to cut the order by cost, the one with least zeros."""
    cost = 27 * posed + 12 * weighted  # multiply-adds of a vertex: three planes, and the motion
    order, number = np.argsort(cost, kind="stable"), len(posed)
    # A group needs several blocks to be worth its operations.
    count = max(1, min(_GROUPS, number // 8))
    of_run = np.full((number + 1, number + 1), np.inf)
    for start in range(number):
        most = [np.maximum.accumulate(used[order[start:]]) for used in (posed, weighted)]
        sizes = np.arange(1, number - start + 1)
        of_run[start, start + 1 :] = sizes * (27 * most[0] + 12 * most[1])
    # best[k][end]: the least cost of the first `end` blocks in k groups (dynamic programming).
    best, cuts = of_run[0], []
    for _ in range(count - 1):
        total = best[:, None] + of_run
        cuts.append(np.argmin(total, axis=0))
        best = np.min(total, axis=0)
    ends = [number]
    for cut in reversed(cuts):
        ends.append(int(cut[ends[-1]]))
    return [np.sort(part) for part in np.split(order, ends[:0:-1])]


def _used(used: np.ndarray) -> Int[np.ndarray, "N most"]:
    """The indices of the true entries of each row, then -1."""
    most = max(1, int(used.sum(axis=1).max()))
    order = np.argsort(~used, axis=1, kind="stable")[:, :most]
    return np.where(np.take_along_axis(used, order, axis=1), order, -1).astype(np.int32)


def dense_tables(
    blocks: tuple[Blocks, ...], joints: int, vertices: int
) -> tuple[Float[np.ndarray, "K 3 V"], Float[np.ndarray, "J V"]]:
    """Directions and weights as dense tables, the inverse of `make_blocks`; not inside `jit`."""
    blocks = jax.tree.map(np.asarray, blocks)
    number, length = sum(len(group.places) for group in blocks), blocks[0].weights.shape[-1]
    # The index -1 falls on a last row, which is cut off.
    weights = np.zeros((number, joints + 1, length), np.float32)
    shape = np.zeros((number, blocks[0].shapes, 3, length), np.float32)
    pose = np.zeros((number, joints, 9, 3, length), np.float32)
    for group in blocks:
        rows = np.array(group.places)[:, None]
        weights[rows, group.weight_joints] = group.weights
        directions = np.stack(group.directions, axis=-2)
        shape[rows[:, 0]], found = np.split(directions, [group.shapes], axis=1)
        pose[rows, group.pose_joints] = found.reshape(len(rows), -1, 9, 3, length)
    pose = pose[:, : joints - 1].reshape(number, -1, 3, length)
    join = lambda array: np.moveaxis(array, 0, -2).reshape(*array.shape[1:-1], -1)[..., :vertices]
    return join(np.concatenate([shape, pose], axis=1)), join(weights[:, :joints])


def vertex_tables(
    blocks: tuple[Blocks, ...], joints: int, index: Int[Array, "*n"]
) -> tuple[Float[Array, "*n S 3"], Float[Array, "*n J"]]:
    """The shape directions and the skinning weights of single vertices; also inside `jit`."""
    length = blocks[0].weights.shape[-1]
    place, at = index // length, index % length
    directions, weights = 0.0, 0.0
    for group in blocks:
        is_block = place[..., None] == jnp.array(group.places)
        row, mine = jnp.argmax(is_block, axis=-1), jnp.any(is_block, axis=-1)[..., None]
        shape = [plane[:, : group.shapes][row, :, at] for plane in group.directions]
        directions += mine[..., None] * jnp.stack(shape, axis=-1)
        is_joint = group.weight_joints[row][..., None] == jnp.arange(joints)
        found = jnp.sum(group.weights[row, :, at][..., None] * is_joint, axis=-2)
        weights += mine * found
    return directions, weights

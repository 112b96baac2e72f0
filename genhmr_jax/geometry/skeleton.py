"""Forward kinematics of a tree of joints in NumPy, for code that runs on the host."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def forward_kinematics(
    parents: Sequence[int],
    offsets: Float[np.ndarray, "b J 3"],
    rotmats: Float[np.ndarray, "b J 3 3"],
) -> tuple[Float[np.ndarray, "b J 3 3"], Float[np.ndarray, "b J 3"]]:
    """World rotations and positions of the joints (Loper et al. 2015, eq. 4).

    `smpl_jax.lbs.pose_skeleton` is the same in JAX.

    Args:
      parents: the parent of each joint, -1 for the root; a parent comes before its children.
      offsets: from the parent to the joint at rest; the root's is its position. Any unit of length.
      rotmats: rotation of each joint relative to its parent; the root's is relative to the world.
    """
    rotations = np.array(rotmats)
    positions = np.array(offsets)
    for joint, parent in enumerate(parents):
        if parent >= 0:
            above = rotations[:, parent]
            rotations[:, joint] = above @ rotmats[:, joint]
            offset = np.einsum("bij,bj->bi", above, offsets[:, joint])
            positions[:, joint] = positions[:, parent] + offset
    return rotations, positions

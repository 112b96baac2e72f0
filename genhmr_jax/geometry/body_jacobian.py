"""How points of a posed body move with its joint rotations and its shape, in closed form.

A rotation of joint j by the small vector w, in the axes of the world, moves a point p that is
attached below j by w x (p - x_j). A vertex moves by the share of its skinning weights that is below
j. The shape moves joints along the skeleton and vertices by their blend shapes; both are linear in
the betas. Two terms of linear blend skinning are left out: the blend shapes of the pose, and the
spread of the positions at which the bones of a vertex would put it. So the result is exact for
joints, and the derivatives by the betas are exact for all points. It is meant for the curvature of
a least-squares problem, not for its gradient.

Rotations are perturbed in the axes of the parent: R_j -> exp([a_j]x) R_j, so that w = A_parent a_j.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from smpl_jax import SmplModel, SmplOutput
from smpl_jax.blocks import vertex_tables

from genhmr_jax.geometry.keypoints import keypoint_points

CROSS = np.zeros((3, 3, 3), np.float32)
"""CROSS[k] is the matrix [e_k]x: CROSS[k] @ v = e_k x v."""
CROSS[[0, 1, 2], [2, 0, 1], [1, 2, 0]] = 1.0
CROSS[[0, 1, 2], [1, 2, 0], [2, 0, 1]] = -1.0

_einsum = functools.partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)


class Attachment(NamedTuple):
    """How N points of each of B bodies are attached.

    Attributes:
      share: (B, N, J) part of the point that moves with each joint.
      by_shape: (B, N, S, 3) motion for each shape coefficient, metres.
    """

    share: Float[Array, "B N J"]
    by_shape: Float[Array, "B N S 3"]


class BodyJacobian(NamedTuple):
    """The motions of the joints of B posed bodies; see `body_jacobian`.

    Attributes:
      body: the body.
      joints: (B, J, 3) positions, metres.
      above: (B, J, 3, 3) world rotation of the parent of each joint.
      world: (B, J, 3, 3) world rotation of each joint.
      joints_by_shape: (B, J, S, 3) motion of the joints for each shape coefficient.
    """

    body: SmplModel
    joints: Float[Array, "B J 3"]
    above: Float[Array, "B J 3 3"]
    world: Float[Array, "B J 3 3"]
    joints_by_shape: Float[Array, "B J S 3"]

    def vertices(self, index: Int[Array, "B N"]) -> Attachment:
        """The attachment of vertices."""
        body, shapes = self.body, self.body.num_betas
        # v = sum_k w_k (A_k (v_rest - x_rest_k) + x_k), and all of v_rest, x_rest and x are linear
        # in the betas.
        arm = _einsum("bjxy,sjy->bjsx", self.world, body.joint_shapedirs)
        bones = jnp.concatenate([self.world, self.joints_by_shape - arm], -2)
        bones = bones.reshape(*bones.shape[:2], -1)
        directions, weights = vertex_tables(body.blocks, body.num_joints, index)
        blended = _einsum("bnj,bjk->bnk", weights, bones).reshape(*index.shape, 3 + shapes, 3)
        turned = _einsum("bnxy,bnsy->bnsx", blended[:, :, :3], directions)
        share = _einsum("bnk,jk->bnj", weights, _below(body.parents))
        return Attachment(share, turned + blended[:, :, 3:])

    def skeleton(self) -> Attachment:
        """The attachment of all joints."""
        share = jnp.asarray(_below(self.body.parents).T)
        return Attachment(jnp.tile(share, (len(self.joints), 1, 1)), self.joints_by_shape)

    def keypoints(self, vertices: Attachment) -> Attachment:
        """The attachment of the detected keypoints, given that of the vertices among them."""
        joints = self.skeleton()
        flat = lambda x: x.reshape(*x.shape[:2], -1)
        pick = lambda v, j: keypoint_points(self.body, SmplOutput(flat(v), flat(j), j))
        share, by_shape = map(pick, vertices, joints)
        return Attachment(share, by_shape.reshape(*share.shape[:2], -1, 3))

    def rows(
        self, directions: Float[Array, "B N 3"], points: Float[Array, "B N 3"], moving: Attachment
    ) -> Float[Array, "B N P"]:
        """Derivatives of d . p for points p and directions d; P = 3 J rotations, then S betas.

        With w_j = A_j a_j it is d . (w_j x (p - x_j)) = a_j . A_j^T (p x d - x_j x d).
        """
        at_joint = _einsum("bjx,xyz->bjzy", self.joints, CROSS)  # -[x_j]x
        line = jnp.concatenate([directions, jnp.cross(points, directions)], -1)
        turn = jnp.swapaxes(self.above, -1, -2)
        turn = jnp.concatenate([_einsum("bjkx,bjxy->bjky", turn, at_joint), turn], -1)
        rotation = _einsum("bnx,bjkx->bnjk", line, turn) * moving.share[..., None]
        shape = _einsum("bnx,bnsx->bns", directions, moving.by_shape)
        return jnp.concatenate([rotation.reshape(*points.shape[:2], -1), shape], -1)


def body_jacobian(
    body: SmplModel, rotmats: Float[Array, "B J 3 3"], joints: Float[Array, "B J 3"]
) -> BodyJacobian:
    """The Jacobian of bodies in a pose.

    Args:
      body: the body.
      rotmats: the pose.
      joints: of smpl_jax.forward; with or without a translation, as the points of `rows`.
    """
    parents, count = np.array(body.parents), body.num_joints
    # 1. World rotations, by doubling: after n rounds each is the product over 2^n joints upwards.
    # A further joint, without rotation, is the parent of the root and its own.
    up = np.append(np.where(parents < 0, count, parents), count)
    world = jnp.pad(rotmats, ((0, 0), (0, 1), (0, 0), (0, 0)))
    world = world.at[:, count].set(jnp.eye(3))
    ancestor = up
    while (ancestor < count).any():
        world = _einsum("bjxy,bjyz->bjxz", world[:, ancestor], world)
        ancestor = ancestor[ancestor]
    above = world[:, up[:count]]
    # 2. The shape moves a joint by the sum of the changed bones above it.
    bones = jnp.pad(body.joint_shapedirs, ((0, 0), (0, 1), (0, 0)))
    bones = bones[:, :count] - bones[:, up[:count]]
    turned = _einsum("bjxy,sjy->bjsx", above, bones)
    by_shape = _einsum("jk,bjsx->bksx", _below(body.parents), turned)
    return BodyJacobian(body, joints, above, world[:, :count], by_shape)


def _below(parents: tuple[int, ...]) -> Float[np.ndarray, "J J"]:
    """1 at (j, k) if joint k is j or below it."""
    below = np.eye(len(parents), dtype=np.float32)
    for joint, parent in enumerate(parents):
        if parent >= 0:
            below[:, joint] += below[:, parent]
    return below

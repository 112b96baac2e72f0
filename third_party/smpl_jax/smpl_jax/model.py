"""The body: SmplModel, a frozen pytree, and the pure functions `forward` and `posed_joints`.

After Loper et al., "SMPL: A Skinned Multi-Person Linear Model", SIGGRAPH Asia 2015. A shape and a
pose give a mesh in three steps (lbs.py):

    1. Skeleton:      rest joints = joint_template + sum_s beta_s joint_shapedirs_s.
                      The rotations R_j, chained from the root, give each joint j a motion from
                      its rest pose, v -> A_j v + t_j.
    2. Blend shapes:  v = template + sum_s beta_s directions_s + sum_k (R - 1)_k directions_(S+k)
    3. Skinning:      posed vertex = sum_j w_j (A_j v + t_j)

(R - 1)_k are the nine entries of R_j - 1 of all joints but the root. These blend shapes correct the
mesh where skinning alone would deform it badly.
"""

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from smpl_jax import lbs
from smpl_jax.blocks import Blocks, dense_tables, make_blocks
from smpl_jax.rotations import axis_angle_to_matrix


class SmplOutput(NamedTuple):
    """Posed vertices and joints, and the joints of the same shape in the rest pose; metres."""

    vertices: Float[Array, "*batch V 3"]
    joints: Float[Array, "*batch J 3"]
    rest_joints: Float[Array, "*batch J 3"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SmplModel:
    """A body in SMPL's form: V vertices, J joints, S shape directions; y up, z forward, metres.

    It is a pytree: pass it to jitted functions as an argument. If a jitted function closes over a
    model, its arrays become constants of the program, which is slow to compile.

    Attributes:
      template: (3, V) vertices of the mean shape in the rest pose, one plane for each coordinate.
      blocks: blend shapes and skinning weights, by blocks of vertices (blocks.make_blocks).
      joint_template: (J, 3) joints of the mean shape: the joint regressor times the template.
      joint_shapedirs: (S, J, 3) displacement of the joints for each shape coefficient.
      faces: (F, 3) vertex indices, counter-clockwise from outside.
      parents: the parent of each joint, -1 for the root.
      joint_names: a name for each joint.
      named_vertices: (name, index) of vertices that are surface keypoints, such as ("nose", 332).
    """

    template: Float[Array, "3 V"]
    blocks: tuple[Blocks, ...]
    joint_template: Float[Array, "J 3"]
    joint_shapedirs: Float[Array, "S J 3"]
    faces: Int[Array, "F 3"]
    parents: tuple[int, ...] = field(metadata={"static": True})
    joint_names: tuple[str, ...] = field(metadata={"static": True})
    named_vertices: tuple[tuple[str, int], ...] = field(metadata={"static": True})

    @property
    def num_vertices(self) -> int:
        """V."""
        return self.template.shape[-1]

    @property
    def num_joints(self) -> int:
        """J."""
        return len(self.parents)

    @property
    def num_betas(self) -> int:
        """S."""
        return self.joint_shapedirs.shape[-3]

    @property
    def directions(self) -> Float[np.ndarray, "K 3 V"]:
        """(S + 9 (J - 1), 3, V) blend shapes, first of the shape, then of the pose; a new table.

        Not inside `jit`, as `weights`.
        """
        return dense_tables(self.blocks, self.num_joints, self.num_vertices)[0]

    @property
    def weights(self) -> Float[np.ndarray, "J V"]:
        """(J, V) skinning weights; each column sums to 1. A new table."""
        return dense_tables(self.blocks, self.num_joints, self.num_vertices)[1]

    @property
    def vertex_ids(self) -> dict[str, int]:
        """Index of each named vertex, by name."""
        return dict(self.named_vertices)

    def subset(self, vertex_ids: Int[np.ndarray, "N"]) -> "SmplModel":
        """The same skeleton with only these vertices, in this order.

        With few vertices, such as surface keypoints, posing is much cheaper. Named vertices that
        are not in the subset are dropped, and so are faces with such a corner. This method cannot
        be used inside `jit`, because the shape of the result depends on the values of the faces.

        Raises:
          ValueError: an index that is out of range or given twice.
        """
        chosen = np.asarray(vertex_ids, dtype=np.int64).reshape(-1)
        outside = np.any((chosen < 0) | (chosen >= self.num_vertices))
        if outside or len(np.unique(chosen)) != len(chosen):
            raise ValueError(f"vertex_ids must be distinct and in 0..{self.num_vertices - 1}")
        new_id = np.full(self.num_vertices, -1)
        new_id[chosen] = np.arange(len(chosen))
        faces = new_id[np.asarray(self.faces)]
        # By NumPy: jnp would compile a program for each shape.
        template = np.ascontiguousarray(np.asarray(self.template)[:, chosen])
        tables = dense_tables(self.blocks, self.num_joints, self.num_vertices)
        named = ((name, int(new_id[index])) for name, index in self.named_vertices)
        return replace(
            self,
            template=jax.device_put(template),
            blocks=make_blocks(*(table[..., chosen] for table in tables)),
            faces=jax.device_put(faces[np.all(faces >= 0, axis=-1)].astype(np.int32)),
            named_vertices=tuple((name, index) for name, index in named if index >= 0),
        )


def forward(
    model: SmplModel,
    betas: Float[Array, "*batch_b S"],
    pose: Float[Array, "*batch_p 72"]
    | Float[Array, "*batch_p 24 3"]
    | Float[Array, "*batch_p 24 3 3"],
    translation: Float[Array, "*batch_t 3"] | None = None,
) -> SmplOutput:
    """Compute the vertices and joints of a shape in a pose.

    Leading axes of betas, pose and translation broadcast against each other: one shape can take
    many poses, and one pose many shapes.

    Args:
      model: the body.
      betas: shape coefficients, in standard deviations. If there are fewer than the model's, the
        others are zero.
      pose: rotation of each joint relative to its parent, first the root's (global_orient), then
        the body_pose: axis-angle in radians, as (..., 24, 3) or flat (..., 72), or rotation
        matrices (..., 24, 3, 3).
      translation: metres, added to vertices and joints (default: zero). The root rotates about the
        pelvis, which is not the origin.

    Raises:
      ValueError: betas or pose of another shape.
    """
    # 1. The skeleton: joints of the shape at rest, then forward kinematics from the root outwards.
    rotmats = _pose_to_matrices(model, pose)
    betas = _pad_betas(model, betas)
    rest_joints = _rest_joints(model, betas)
    world_rotations, joints = lbs.pose_skeleton(model.parents, rest_joints, rotmats)
    rest_joints = jnp.broadcast_to(rest_joints, joints.shape)
    # 2. The mesh: blend shapes, then skinning by the motion [A | t] of each joint from rest.
    features = lbs.pose_features(betas, rotmats)
    motions = lbs.rest_to_world(rest_joints, world_rotations, joints)
    vertices = lbs.deform(model.template, model.blocks, features, motions)
    # 3. The translation.
    if translation is not None:
        shift = jnp.asarray(translation)[..., None, :]
        vertices, joints = vertices + shift, joints + shift
        rest_joints = jnp.broadcast_to(rest_joints, joints.shape)
    return SmplOutput(vertices, joints, rest_joints)


def posed_joints(
    model: SmplModel, betas: Float[Array, "*batch_b S"], rotmats: Float[Array, "*batch_p 24 3 3"]
) -> Float[Array, "*batch 24 3"]:
    """Compute the posed joints, metres, without any vertex.

    This needs no mesh, because the joints depend on the shape only (joint_template and
    joint_shapedirs). Betas and rotmats are those of `forward`.
    """
    rotmats = _pose_to_matrices(model, rotmats)
    rest_joints = _rest_joints(model, _pad_betas(model, betas))
    return lbs.pose_skeleton(model.parents, rest_joints, rotmats)[1]


def _rest_joints(model: SmplModel, betas: Float[Array, "*batch S"]) -> Float[Array, "*batch J 3"]:
    """The joints of a shape in the rest pose, metres."""
    shift = jnp.einsum(
        "...s,sjc->...jc", betas, model.joint_shapedirs, precision=jax.lax.Precision.HIGHEST
    )
    return model.joint_template + shift


def _pad_betas(model: SmplModel, betas: Float[Array, "*batch s"]) -> Float[Array, "*batch S"]:
    """The shape coefficients with zeros for the missing ones."""
    betas = _at_least(model, betas)
    if betas.ndim == 0 or betas.shape[-1] > model.num_betas:
        most = f"at most the model's {model.num_betas} coefficients"
        raise ValueError(f"betas of shape {betas.shape}: the last axis may hold {most}")
    missing = model.num_betas - betas.shape[-1]
    return jnp.pad(betas, [(0, 0)] * (betas.ndim - 1) + [(0, missing)]) if missing else betas


def _pose_to_matrices(model: SmplModel, pose: Array) -> Float[Array, "*batch J 3 3"]:
    """The rotation matrices of a pose in any of the forms of `forward`."""
    pose, joints = _at_least(model, pose), model.num_joints
    if pose.shape[-3:] == (joints, 3, 3):
        return pose
    if pose.shape[-2:] == (joints, 3):
        return axis_angle_to_matrix(pose)
    if pose.shape[-1:] == (3 * joints,):
        return axis_angle_to_matrix(pose.reshape(*pose.shape[:-1], joints, 3))
    expected = f"(..., {joints}, 3, 3), (..., {joints}, 3) or (..., {3 * joints})"
    raise ValueError(f"pose of shape {pose.shape}: expected {expected}")


def _at_least(model: SmplModel, array: Array) -> Array:
    """The array in the model's precision, or in its own if that is higher.

    A network may return bfloat16, in which positions would have errors of centimetres.
    """
    array = jnp.asarray(array)
    return array.astype(jnp.promote_types(array.dtype, model.template.dtype))
